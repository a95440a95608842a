package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A client that closes first keeps its address and port in TIME_WAIT for a
// minute. On the loopback device the kernel uses them again at once
// (tcp_tw_reuse=2), here it does not: after 28,000 connections within a minute a
// program would have no port left for this destination. So, when such a
// connection is through, one stray segment is sent after it. TIME_WAIT answers
// with the sequence number that it expects; gVisor, which knows the connection
// no more, resets exactly that; and the kernel forgets it, unless tcp_rfc1337 is
// set. What TIME_WAIT protects from, segments that wandered about, does not
// exist between the kernel and us.

// ending is called before the stream towards the client ends.
func (c *Conn) ending() {
	if tcp.EndpointState(c.endpoint.State()) != tcp.StateCloseWait {
		return // the client did not close first
	}
	c.afterEnd.Do(func() {
		entry := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) {
			if tcp.EndpointState(c.endpoint.State()) == tcp.StateClose {
				c.strayed.Do(func() { c.stack.stray(c) })
			}
		})
		c.queue.EventRegister(&entry)
	})
}

// stray sends a segment that belongs to nothing.
func (s *Stack) stray(c *Conn) {
	// It fails when the stack is closing.
	_ = s.send(c.local.Addr(), c.remote.Addr(), func(route *stack.Route) error {
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
			ReserveHeaderBytes: header.TCPMinimumSize + int(route.MaxHeaderLength()),
		})
		defer packet.DecRef()
		packet.TransportProtocolNumber = header.TCPProtocolNumber
		h := header.TCP(packet.TransportHeader().Push(header.TCPMinimumSize))
		h.Encode(&header.TCPFields{
			SrcPort: c.local.Port(), DstPort: c.remote.Port(), DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck,
		})
		h.SetChecksum(^h.CalculateChecksum(route.PseudoHeaderChecksum(header.TCPProtocolNumber, header.TCPMinimumSize)))
		_ = route.WritePacket(stack.NetworkHeaderParams{Protocol: header.TCPProtocolNumber, TTL: route.DefaultTTL()}, packet)
		return nil
	})
}
