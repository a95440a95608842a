package netstack

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// PortUnreachable tells the client from that a datagram, which it sent to to,
// found nobody. The kernel finds the client's socket by the addresses and ports
// that the message quotes, so the datagram itself need not be kept.
func (s *Stack) PortUnreachable(from, to netip.AddrPort) error {
	err := s.send(to.Addr(), from.Addr(), func(route *stack.Route) error {
		return sendPortUnreachable(route, quotation(from, to))
	})
	if err != nil {
		return fmt.Errorf("port unreachable to %v: %w", from, err)
	}
	return nil
}

func sendPortUnreachable(route *stack.Route, quote []byte) error {
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: max(header.ICMPv4MinimumSize, header.ICMPv6DstUnreachableMinimumSize) + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(quote),
	})
	defer packet.DecRef()
	var protocol tcpip.TransportProtocolNumber
	if route.NetProto() == header.IPv4ProtocolNumber {
		protocol = header.ICMPv4ProtocolNumber
		h := header.ICMPv4(packet.TransportHeader().Push(header.ICMPv4MinimumSize))
		h.SetType(header.ICMPv4DstUnreachable)
		h.SetCode(header.ICMPv4PortUnreachable)
		h.SetChecksum(header.ICMPv4Checksum(h, checksum.Checksum(quote, 0)))
	} else {
		protocol = header.ICMPv6ProtocolNumber
		h := header.ICMPv6(packet.TransportHeader().Push(header.ICMPv6DstUnreachableMinimumSize))
		h.SetType(header.ICMPv6DstUnreachable)
		h.SetCode(header.ICMPv6PortUnreachable)
		h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header:      h,
			Src:         route.LocalAddress(),
			Dst:         route.RemoteAddress(),
			PayloadCsum: checksum.Checksum(quote, 0),
			PayloadLen:  len(quote),
		}))
	}
	packet.TransportProtocolNumber = protocol
	if err := route.WritePacket(stack.NetworkHeaderParams{Protocol: protocol, TTL: route.DefaultTTL()}, packet); err != nil {
		return errno(err)
	}
	return nil
}

// quotation is the beginning of a datagram: its IP and its UDP header.
func quotation(from, to netip.AddrPort) []byte {
	source, destination := tcpip.AddrFromSlice(from.Addr().AsSlice()), tcpip.AddrFromSlice(to.Addr().AsSlice())
	size := header.IPv6MinimumSize
	if from.Addr().Is4() {
		size = header.IPv4MinimumSize
	}
	b := make([]byte, size+header.UDPMinimumSize)
	if from.Addr().Is4() {
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
			SrcAddr: source, DstAddr: destination,
		})
		h.SetChecksum(^h.CalculateChecksum())
	} else {
		header.IPv6(b).Encode(&header.IPv6Fields{
			PayloadLength: header.UDPMinimumSize, TransportProtocol: header.UDPProtocolNumber, HopLimit: 64,
			SrcAddr: source, DstAddr: destination,
		})
	}
	header.UDP(b[size:]).Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: header.UDPMinimumSize})
	return b
}
