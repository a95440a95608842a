package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// reply is a netlink message of a kernel made up for a test.
type reply struct {
	typ, flags uint16
	seqOffset  uint32 // added to the number of the request
	payload    []byte
}

// fakeKernel gives a Conn whose requests answer serves: it gets the request and
// gives what each read returns.
func fakeKernel(t *testing.T, answer func(request []byte) [][]reply) *Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{fd: fds[0], buf: make([]byte, receiveBuffer)}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fds[1], buf)
			if err != nil || n == 0 {
				return
			}
			seq := binary.NativeEndian.Uint32(buf[8:])
			for _, chunk := range answer(buf[:n]) {
				var b []byte
				for _, r := range chunk {
					b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(r.payload)))
					b = binary.NativeEndian.AppendUint16(b, r.typ)
					b = binary.NativeEndian.AppendUint16(b, r.flags)
					b = binary.NativeEndian.AppendUint32(b, seq+r.seqOffset)
					b = binary.NativeEndian.AppendUint32(b, 0)
					b = append(b, r.payload...)
				}
				if _, err := unix.Write(fds[1], b); err != nil {
					return
				}
			}
		}
	})
	t.Cleanup(func() {
		c.Close()
		serving.Wait()
		unix.Close(fds[1])
	})
	return c
}

func errno(e unix.Errno) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e)))
}

var done = reply{typ: unix.NLMSG_DONE, payload: errno(0)}

func found(s string) reply {
	return reply{typ: sockDiagByFamily, payload: diagMessage(IPv4, StateListen, netip.MustParseAddrPort(s))}
}

// TestDumpFailure holds that a dump which fails or is interrupted changes
// nothing.
func TestDumpFailure(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer [][]reply
		want   error
		tries  int
	}{
		{"interrupted", [][]reply{{found("127.0.0.1:1")}, {{typ: unix.NLMSG_DONE, flags: nlmFlagDumpIntr, payload: errno(0)}}}, ErrInterrupted, attempts},
		{"interrupted early", [][]reply{{{typ: sockDiagByFamily, flags: nlmFlagDumpIntr, payload: found("127.0.0.1:1").payload}}, {done}}, ErrInterrupted, attempts},
		{"refused", [][]reply{{{typ: unix.NLMSG_ERROR, payload: errno(unix.EPERM)}}}, unix.EPERM, 1},
		{"fails in the middle", [][]reply{{found("127.0.0.1:1")}, {{typ: unix.NLMSG_DONE, payload: errno(unix.ENOMEM)}}}, unix.ENOMEM, 1},
		{"malformed", [][]reply{{{typ: sockDiagByFamily, payload: []byte{2, 10}}}}, ErrMalformed, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tries := 0
			conn := fakeKernel(t, func([]byte) [][]reply {
				tries++
				return c.answer
			})
			before := []Socket{{Cookie: 1}}
			got, _, err := conn.Dump(before, TCP)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if !slices.Equal(got, before) {
				t.Errorf("got %v, want what was there before", got)
			}
			if tries != c.tries {
				t.Errorf("tried %d times, want %d", tries, c.tries)
			}
		})
	}
}

// TestDumpInterruptedOnce holds that an interrupted dump is tried again and its
// first part is not counted twice.
func TestDumpInterruptedOnce(t *testing.T) {
	requests := 0
	conn := fakeKernel(t, func(request []byte) [][]reply {
		requests++
		if Family(request[16]) == IPv6 {
			return [][]reply{{done}}
		}
		if requests == 1 {
			return [][]reply{{found("127.0.0.1:1")}, {{typ: unix.NLMSG_DONE, flags: nlmFlagDumpIntr, payload: errno(0)}}}
		}
		// A message of the dump before arrives late.
		late := found("127.0.0.1:9")
		late.seqOffset = ^uint32(0)
		return [][]reply{{late, found("127.0.0.1:1")}, {found("127.0.0.1:2")}, {done}}
	})
	got, res, err := conn.Dump(nil, TCP)
	if err != nil || len(got) != 2 || res.Chunks != 2 {
		t.Errorf("got %v, %+v, %v, want two sockets in two chunks", got, res, err)
	}
}

// TestNoIPv6 holds A8: a kernel without IPv6 has IPv4 sockets, and is not asked
// again.
func TestNoIPv6(t *testing.T) {
	asked := 0
	conn := fakeKernel(t, func(request []byte) [][]reply {
		if Family(request[16]) == IPv6 {
			asked++
			return [][]reply{{{typ: unix.NLMSG_ERROR, payload: errno(unix.ENOENT)}}}
		}
		return [][]reply{{found("127.0.0.1:1")}, {done}}
	})
	for range 3 {
		got, _, err := conn.Dump(nil, TCP)
		if err != nil || len(got) != 1 {
			t.Errorf("got %v, %v, want one socket", got, err)
		}
	}
	if asked != 1 {
		t.Errorf("asked for IPv6 %d times, want once", asked)
	}
}

func TestClose(t *testing.T) {
	c, err := Open()
	if err != nil {
		t.Skip("no sock_diag:", err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := c.Dump(nil, TCP); err == nil {
		t.Error("a closed Conn dumps")
	}
}
