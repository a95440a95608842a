package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// nicID is the only network interface of a stack.
const nicID tcpip.NICID = 1

// Bytes that gVisor holds for one TCP connection before its sender has to
// wait. They are limits, nothing is reserved. Receiving begins with
// bufferSize and grows with the reader, of which half is offered as a window.
const (
	bufferSize    = 1 << 20
	maxBufferSize = 4 << 20
)

// Config of a Stack.
type Config struct {
	// Device gives and takes packets behind a virtio_net_hdr, as tun.Device.File
	// does. It stays the caller's, who closes it after the Stack.
	Device *os.File
	// MTU of the device.
	MTU int
	// Host4 and Host6 are the addresses to answer at. Packets to others are
	// dropped. Either may be zero.
	Host4, Host6 netip.Addr
	// TCP is called, in a goroutine of its own, for each connection that a client
	// begins. A request that it leaves unanswered is ignored.
	TCP func(*Request)
	// UDP is called for each datagram, whole, by the goroutine that reads the
	// device: it must neither block nor keep the payload.
	UDP func(from, to netip.AddrPort, payload []byte)
}

// Stack is a network stack that answers at the host addresses.
type Stack struct {
	config    Config
	stack     *stack.Stack
	link      *link
	forwarder *tcp.Forwarder
	requests  requests
	closing   sync.Once

	// sending is held by those who send by themselves: none of them may write to
	// the device after Close, when its descriptor may be another file's.
	sending sync.RWMutex
	closed  bool // guarded by sending
}

// New starts a stack on a device.
func New(cfg Config) (*Stack, error) {
	link, err := newLink(cfg.Device, uint32(cfg.MTU))
	if err != nil {
		return nil, fmt.Errorf("network stack: %w", err)
	}
	s := &Stack{
		config: cfg,
		link:   link,
		stack: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{
				// For clients that are bound to 127.0.0.1.
				ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}),
				ipv6.NewProtocol,
			},
			TransportProtocols: []stack.TransportProtocolFactory{
				tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
			},
		}),
	}
	s.requests.init()
	if err := s.configure(); err != nil {
		s.stack.Destroy()
		return nil, fmt.Errorf("network stack: %w", err)
	}
	s.forwarder = tcp.NewForwarder(s.stack, bufferSize, maxHalfOpen, s.request)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleTCP)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
	s.link.start()
	return s, nil
}

func (s *Stack) configure() error {
	if err := s.stack.CreateNIC(nicID, s.link); err != nil {
		return fmt.Errorf("interface: %v", err)
	}
	for _, a := range []netip.Addr{s.config.Host4, s.config.Host6} {
		if !a.IsValid() {
			continue
		}
		address := tcpip.ProtocolAddress{
			Protocol:          networkProtocol(a),
			AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}
		if err := s.stack.AddProtocolAddress(nicID, address, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("address %v: %v", a, err)
		}
	}
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: maxBufferSize}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: maxBufferSize}
	// TIME_WAIT is for segments that wander about in a network, of which there
	// is none here: the device keeps their order. It would be harmful, since gVisor
	// drops a SYN that meets it, and clients use ports again after 28,000 connections.
	timeWait := tcpip.TCPTimeWaitTimeoutOption(0)
	for _, option := range []tcpip.SettableTransportProtocolOption{&receive, &send, &timeWait} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("option %T: %v", option, err)
		}
	}
	return nil
}

// Done is closed when the device gives no more packets: after Close, or because
// somebody removed it.
func (s *Stack) Done() <-chan struct{} { return s.link.ended }

// Close refuses what still comes for a moment, resets all connections, and waits
// for the stack's goroutines, and so for the calls of Config.TCP to return. It is
// idempotent.
func (s *Stack) Close() error {
	s.closing.Do(func() {
		s.requests.close()
		s.link.stop()
		s.endRequests()
		s.stack.Destroy()
		s.sending.Lock()
		s.closed = true
		s.sending.Unlock()
	})
	return nil
}

// endRequests waits for the calls of Config.TCP. One of them may begin a
// handshake at any time, and hear nothing more of its client.
func (s *Stack) endRequests() {
	done := make(chan struct{})
	go func() {
		s.requests.wait()
		close(done)
	}()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		s.stack.Close() // also ends handshakes
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

func networkProtocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	address, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(address, port)
}

// send calls f with a route from a host address to a client, whatever address
// that has.
func (s *Stack) send(from, to netip.Addr, f func(*stack.Route) error) error {
	s.sending.RLock()
	defer s.sending.RUnlock()
	if s.closed {
		return net.ErrClosed
	}
	route, err := s.route(from, to)
	if err != nil {
		return err
	}
	defer route.Release()
	return f(route)
}

func (s *Stack) route(from, to netip.Addr) (*stack.Route, error) {
	if from.Is4() != to.Is4() {
		return nil, errors.New("addresses of different families")
	}
	r, err := s.stack.FindRoute(nicID, tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), networkProtocol(to), false)
	if err != nil {
		return nil, errno(err)
	}
	return r, nil
}
