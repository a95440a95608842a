package netstack

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// FuzzPackets writes packets to a stack, which must not mind, and finds it alive
// afterwards.
func FuzzPackets(f *testing.F) {
	host4, guest4 := netip.MustParseAddr("169.254.113.2"), netip.MustParseAddr("169.254.113.3")
	host6, guest6 := netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3")
	for _, hosts := range [][2]netip.Addr{{guest4, host4}, {guest6, host6}} {
		f.Add(packet(hosts[0], hosts[1], uint8(header.UDPProtocolNumber), []byte{0, 9, 0, 53, 0, 9, 0, 0, 'x'}))
		syn := make([]byte, header.TCPMinimumSize)
		header.TCP(syn).Encode(&header.TCPFields{SrcPort: 9, DstPort: 80, DataOffset: 20, Flags: header.TCPFlagSyn, WindowSize: 100})
		f.Add(packet(hosts[0], hosts[1], uint8(header.TCPProtocolNumber), syn))
		f.Add(packet(hosts[0], hosts[1], uint8(header.ICMPv4ProtocolNumber), []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}))
		f.Add(packet(hosts[0], hosts[1], uint8(header.ICMPv6ProtocolNumber), []byte{128, 0, 0, 0, 0, 0, 0, 0}))
		f.Add(packet(hosts[0], hosts[1], 44, []byte{17, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4}))
	}
	f.Add([]byte{})
	f.Add([]byte{0x40})
	f.Add([]byte{0x60, 0, 0, 0, 0xff, 0xff})

	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		f.Fatal(err)
	}
	device, wire := os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "wire")
	seen := make(chan struct{}, 1)
	s, err := New(Config{
		Device: device, MTU: maxPacket, Host4: host4, Host6: host6,
		TCP: func(r *Request) {
			if r.Destination().Port()%2 == 0 {
				if c, err := r.Accept(); err == nil {
					c.Close()
				}
			}
		},
		UDP: func(_, to netip.AddrPort, payload []byte) {
			if to.Port() == 4242 && string(payload) == "alive?" {
				seen <- struct{}{}
			}
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	go func() { // what the stack answers
		b := make([]byte, headerSize+maxPacket)
		for {
			if _, err := wire.Read(b); err != nil {
				return
			}
		}
	}()
	f.Cleanup(func() {
		s.Close()
		device.Close()
		wire.Close()
	})
	question := packet(guest4, host4, uint8(header.UDPProtocolNumber), []byte("\x00\x09\x10\x92\x00\x0e\x00\x00alive?"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxPacket {
			return
		}
		for _, p := range [][]byte{p, question} {
			if _, err := wire.Write(append(make([]byte, headerSize), p...)); err != nil {
				t.Fatal(err)
			}
		}
		<-seen
	})
}

// packet puts an IP header before a payload.
func packet(from, to netip.Addr, protocol uint8, payload []byte) []byte {
	source, destination := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	if from.Is4() {
		b := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(payload))
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(b) + len(payload)), TTL: 64, Protocol: protocol, SrcAddr: source, DstAddr: destination,
		})
		h.SetChecksum(^h.CalculateChecksum())
		return append(b, payload...)
	}
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TransportProtocol: tcpip.TransportProtocolNumber(protocol), HopLimit: 64,
		SrcAddr: source, DstAddr: destination,
	})
	return append(b, payload...)
}
