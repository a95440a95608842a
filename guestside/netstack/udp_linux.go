package netstack

import (
	"fmt"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// handleUDP gets every datagram, since no endpoint of gVisor is ever bound. It
// claims them all: whether a port is unreachable is for the host to say.
func (s *Stack) handleUDP(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	h := header.UDP(packet.TransportHeader().Slice())
	data := packet.Data()
	size := int(h.Length()) - header.UDPMinimumSize
	if size < 0 || size > data.Size() {
		return true
	}
	// One slice already, unless the datagram is large or came in fragments.
	payload, ok := data.PullUp(size)
	if !ok {
		return true
	}
	s.config.UDP(addrPort(id.RemoteAddress, id.RemotePort), addrPort(id.LocalAddress, id.LocalPort), payload)
	return true
}

// SendUDP sends datagrams from a host address and port to a client, in
// fragments where they need be. It may be called from any goroutine.
func (s *Stack) SendUDP(from, to netip.AddrPort, payloads [][]byte) error {
	err := s.send(from.Addr(), to.Addr(), func(route *stack.Route) error {
		for _, p := range payloads {
			if err := sendUDP(route, from.Port(), to.Port(), p); err != nil {
				return fmt.Errorf("%d bytes: %w", len(p), err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("datagram to %v: %w", to, err)
	}
	return nil
}

func sendUDP(route *stack.Route, from, to uint16, payload []byte) error {
	if len(payload) > header.UDPMaximumSize-header.UDPMinimumSize {
		return syscall.EMSGSIZE
	}
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(payload),
	})
	defer packet.DecRef()
	packet.TransportProtocolNumber = header.UDPProtocolNumber
	h := header.UDP(packet.TransportHeader().Push(header.UDPMinimumSize))
	length := uint16(packet.Size())
	h.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: length})
	sum := route.PseudoHeaderChecksum(header.UDPProtocolNumber, length)
	sum = ^h.CalculateChecksum(checksum.Combine(sum, checksum.Checksum(payload, 0)))
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	h.SetChecksum(sum)
	if err := route.WritePacket(stack.NetworkHeaderParams{
		Protocol: header.UDPProtocolNumber,
		TTL:      route.DefaultTTL(),
	}, packet); err != nil {
		return errno(err)
	}
	return nil
}
