package netstack

import (
	"fmt"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Bounds on connections that wait for an answer, in total and for one port of
// the host. A SYN beyond them is dropped and comes again after a second. The
// second bound keeps a port that nobody answers for from using up the first.
const (
	maxHalfOpen        = 4096
	maxHalfOpenPerPort = 1024
)

// requests are the connections that wait for an answer.
type requests struct {
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending map[stack.TransportEndpointID]struct{}
	perPort map[uint16]int
}

func (r *requests) init() {
	r.pending = make(map[stack.TransportEndpointID]struct{})
	r.perPort = make(map[uint16]int)
}

// What becomes of a SYN.
type verdict int

const (
	hold   verdict = iota // it is a new request
	drop                  // it comes again, if anybody still waits then
	refuse                // there will be no answer any more
)

// begin says what becomes of a SYN.
func (r *requests) begin(id stack.TransportEndpointID) verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, repeated := r.pending[id]; repeated {
		return drop
	}
	if r.closed {
		return refuse
	}
	if len(r.pending) >= maxHalfOpen || r.perPort[id.LocalPort] >= maxHalfOpenPerPort {
		return drop
	}
	r.pending[id] = struct{}{}
	r.perPort[id.LocalPort]++
	r.running.Add(1)
	return hold
}

// answered gives an answer and makes room. The goroutine of the request may go on.
// A client that the answer reaches may try again from the same port at once, and its
// SYN must not pass for a repeated one.
func (r *requests) answered(id stack.TransportEndpointID, answer func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer()
	delete(r.pending, id)
	if r.perPort[id.LocalPort]--; r.perPort[id.LocalPort] == 0 {
		delete(r.perPort, id.LocalPort)
	}
}

func (r *requests) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}

func (r *requests) wait() { r.running.Wait() }

// handleTCP gets the segments that belong to no connection. It reports false
// for those that gVisor shall answer with a reset.
func (s *Stack) handleTCP(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
	flags := header.TCP(packet.TransportHeader().Slice()).Flags()
	if flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	switch s.requests.begin(id) {
	case drop:
		return true
	case refuse:
		return false
	}
	if s.forwarder.HandlePacket(id, packet) {
		return true // and request runs
	}
	s.requests.answered(id, func() {})
	s.requests.running.Done()
	return false
}

// request is called by the forwarder in a new goroutine.
func (s *Stack) request(f *tcp.ForwarderRequest) {
	defer s.requests.running.Done()
	r := &Request{stack: s, forwarded: f, id: f.ID()}
	defer r.Ignore()
	s.config.TCP(r)
}

// Request is a connection that a client began and that waits for its answer.
// The first answer counts, and only in the call of Config.TCP.
type Request struct {
	stack     *Stack
	forwarded *tcp.ForwarderRequest
	id        stack.TransportEndpointID
	answer    sync.Once
}

// Source is the client's address.
func (r *Request) Source() netip.AddrPort { return addrPort(r.id.RemoteAddress, r.id.RemotePort) }

// Destination is the host address and the port that the client wants.
func (r *Request) Destination() netip.AddrPort { return addrPort(r.id.LocalAddress, r.id.LocalPort) }

// Accept completes the handshake. It fails when the client has gone meanwhile.
func (r *Request) Accept() (*Conn, error) {
	conn, err := (*Conn)(nil), errAnswered
	r.answer.Do(func() {
		conn, err = r.accept()
		r.complete(false)
	})
	if err != nil {
		return nil, fmt.Errorf("accept %v: %w", r.Source(), err)
	}
	return conn, nil
}

func (r *Request) accept() (*Conn, error) {
	c := newConn(r.stack, r.Destination(), r.Source())
	endpoint, err := r.forwarded.CreateEndpoint(&c.queue)
	if err != nil {
		return nil, errno(err)
	}
	c.endpoint = endpoint
	return c, nil
}

// Refuse resets the connection: the client sees ECONNREFUSED.
func (r *Request) Refuse() { r.answer.Do(func() { r.complete(true) }) }

// Ignore gives no answer: the client's own timeout decides.
func (r *Request) Ignore() { r.answer.Do(func() { r.complete(false) }) }

func (r *Request) complete(reset bool) {
	r.stack.requests.answered(r.id, func() { r.forwarded.Complete(reset) })
}
