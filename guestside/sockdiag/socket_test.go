package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

// diagMessage builds an inet_diag_msg with attributes.
func diagMessage(f Family, s State, local netip.AddrPort, attrs ...[]byte) []byte {
	b := make([]byte, sizeofInetDiagMsg)
	b[0], b[1] = byte(f), byte(s)
	binary.BigEndian.PutUint16(b[4:], local.Port())
	copy(b[8:24], local.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[40:], 3)          // interface
	binary.NativeEndian.PutUint32(b[44:], 0x11223344) // cookie
	binary.NativeEndian.PutUint32(b[48:], 0x55667788)
	binary.NativeEndian.PutUint32(b[64:], 1000) // uid
	binary.NativeEndian.PutUint32(b[68:], 4711) // inode
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

// attribute builds a netlink attribute with its padding.
func attribute(typ uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(sizeofAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestDecode(t *testing.T) {
	group := binary.NativeEndian.AppendUint64(nil, 77)
	base := Socket{Cookie: 0x5566778811223344, Inode: 4711, UID: 1000, Interface: 3, State: StateListen}
	for _, c := range []struct {
		local  string
		family Family
		attrs  [][]byte
		want   func(*Socket)
	}{
		{"127.0.0.1:80", IPv4, nil, func(*Socket) {}},
		{"[::]:65535", IPv6, [][]byte{attribute(attrV6Only, 1)}, func(s *Socket) { s.V6Only = true }},
		{"[::]:1", IPv6, [][]byte{attribute(attrV6Only, 0)}, func(*Socket) {}},
		{"[::ffff:1.2.3.4]:8080", IPv6, [][]byte{attribute(8, 0), attribute(attrV6Only, 0), attribute(attrCgroupID, group...)},
			func(s *Socket) { s.CgroupID = 77 }},
	} {
		want := base
		want.Local, want.Family = netip.MustParseAddrPort(c.local), c.family
		c.want(&want)
		got, err := Decode(diagMessage(c.family, StateListen, want.Local, c.attrs...))
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", c.local, got, err, want)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	local := netip.MustParseAddrPort("127.0.0.1:80")
	whole := diagMessage(IPv4, StateListen, local)
	for name, b := range map[string][]byte{
		"empty":           nil,
		"short":           whole[:sizeofInetDiagMsg-1],
		"family":          diagMessage(7, StateListen, local),
		"long attribute":  append(diagMessage(IPv4, StateListen, local), 200, 0, 11, 0, 1),
		"short attribute": append(diagMessage(IPv4, StateListen, local), 3, 0, 11, 0),
		"no v6only":       diagMessage(IPv6, StateListen, local, attribute(attrV6Only)),
		"short cgroup":    diagMessage(IPv4, StateListen, local, attribute(attrCgroupID, 1, 2, 3, 4)),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	group := binary.NativeEndian.AppendUint64(nil, 77)
	f.Add(diagMessage(IPv4, StateListen, netip.MustParseAddrPort("127.0.0.1:80")))
	f.Add(diagMessage(IPv6, StateClose, netip.MustParseAddrPort("[::]:80"), attribute(attrV6Only, 1), attribute(attrCgroupID, group...)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		if !s.Local.IsValid() || (s.Family != IPv4 && s.Family != IPv6) {
			t.Errorf("accepted %+v", s)
		}
	})
}
