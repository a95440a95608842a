package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Session is one established link.
type Session struct {
	config Config
	host   bool // this side is the host
	id     [16]byte
	count  int // connections that the session has when it is complete
	epoch  uint64
	name   string // the guest's
	// peerCredit is what the peer takes on a new flow, in bytes.
	peerCredit uint32

	pool    bufferPool
	pipes   pipePool
	queued  atomic.Int64 // bytes in the queues of all streams
	growth  atomic.Int64 // bytes by which windows exceed the initial credit
	stats   Stats        // of the flows that the peer opened
	own     atomic.Int64 // flows that this side opened, alive or about to be
	foreign atomic.Int64 // flows that the peer opened, alive or about to be

	maxFlows  atomic.Int64 // each way
	maxQueued atomic.Int64 // bounds queued

	nextFlow atomic.Uint32

	mu    sync.Mutex
	conns []*conn // a guest's session may grow to count
	// started: Up has been told, and connections that join are read at once.
	started bool
	ended   bool
	err     error
	done    chan struct{}
	work    sync.WaitGroup
}

func newSession(cfg Config, host bool, id [16]byte, count int, epoch uint64, name string, peerCredit uint32) *Session {
	s := &Session{
		config: cfg, host: host, id: id, count: count, epoch: epoch, name: name,
		peerCredit: peerCredit, done: make(chan struct{}),
	}
	s.SetLimits(cfg.MaxFlows, cfg.MaxQueuedBytes)
	return s
}

// Name is the guest's name, fit to be shown.
func (s *Session) Name() string { return s.name }

// Epoch is a number that the agent draws when it starts.
func (s *Session) Epoch() uint64 { return s.epoch }

// Stats counts the flows that the peer opened.
func (s *Session) Stats() *Stats { return &s.stats }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session with a goodbye, which may take a moment, and does not
// wait for its goroutines.
func (s *Session) Close(code wire.Code, reason string) {
	s.goodbye(code, reason)
	s.fail(ErrClosed)
}

// Send queues a control message. Messages arrive in order.
func (s *Session) Send(m message.Message) error {
	payload, err := message.Encode(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(payload) > wire.MaxControl {
		return fmt.Errorf("control message of %d bytes, at most %d are allowed", len(payload), wire.MaxControl)
	}
	s.mu.Lock()
	first := s.conns[0]
	s.mu.Unlock()
	return first.out.write(wire.AppendFrame(nil, wire.TypeControl, 0, payload))
}

// OpenStream carries a connected socket to destination on the other side. It
// does not wait for the answer: a refusal resets the socket. source is told to
// the other side for its listings. The stream owns the socket.
func (s *Session) OpenStream(socket Socket, source, destination netip.AddrPort, stats *Stats) error {
	stream, err := s.AskStream(source, destination, stats, nil)
	if err != nil {
		abortSocket(socket)
		return err
	}
	stream.attach(socket)
	return nil
}

// AskStream asks the other side to connect to destination before there is a
// socket to carry. answered is called once, unless Abort comes first: with 0 when
// it is connected, which Attach or Abort must follow, else with the code of why
// not. It runs on the reader of a connection, so it must not block.
func (s *Session) AskStream(source, destination netip.AddrPort, stats *Stats, answered func(wire.Code)) (*Stream, error) {
	c, err := s.pick()
	if err != nil {
		return nil, err
	}
	stream := newStream(c, s.newFlow(), source, destination, stats)
	stream.inbound, stream.outbound = &stats.BytesOut, &stats.BytesIn
	stream.answered = answered
	if err := c.open(stream.id, stream, stats, wire.Open{Network: wire.TCP, Source: source, Destination: destination}); err != nil {
		return nil, err
	}
	return stream, nil
}

// OpenDatagrams starts a UDP association with destination on the other side.
// receive is called with the datagrams that come back; it runs on the reader of
// a connection, so it must not block, and the payloads are valid only during
// the call. ended is called once when the peer or the session ends the flow.
// Flows with the same affinity share a connection, so that one DatagramBatch
// serves them with one write. On a link that cannot keep up the error is ErrBusy,
// and beyond the limit of flows ErrTooManyFlows.
func (s *Session) OpenDatagrams(source, destination netip.AddrPort, affinity uint32, stats *Stats,
	receive func(payloads [][]byte), ended func(wire.Code)) (*DatagramFlow, error) {
	c, err := s.pickBy(affinity)
	if err != nil {
		return nil, err
	}
	if c.out.congested() {
		return nil, ErrBusy
	}
	f := &DatagramFlow{conn: c, id: s.newFlow(), source: source, destination: destination, stats: stats,
		inbound: &stats.BytesOut, outbound: &stats.BytesIn, receive: receive, ended: ended}
	if err := c.open(f.id, f, stats, wire.Open{Network: wire.UDP, Source: source, Destination: destination}); err != nil {
		return nil, err
	}
	return f, nil
}

// Odd flows are the host's, even ones the guest's, so that both open flows
// without asking.
func (s *Session) ours(flow uint32) bool { return (flow&1 == 1) == s.host }

func (s *Session) newFlow() uint32 {
	// Ids are used again only after two thousand million flows.
	n := s.nextFlow.Add(1) << 1
	if s.host {
		return n - 1
	}
	return n
}

func (s *Session) pick() (*conn, error) { return s.pickBy(s.nextFlow.Load()) }

func (s *Session) pickBy(n uint32) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, ErrClosed
	}
	return s.conns[int(n%uint32(len(s.conns)))], nil
}

// spawn runs f as one of the session's goroutines, unless the session is over.
func (s *Session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.work.Go(f)
	return true
}

// join adds a connection whose handshake is through.
func (s *Session) join(nc net.Conn) bool {
	c := newConn(s, nc)
	s.mu.Lock()
	if s.ended || len(s.conns) == s.count {
		s.mu.Unlock()
		return false
	}
	s.conns = append(s.conns, c)
	started := s.started
	s.mu.Unlock()
	return !started || s.start(c)
}

func (s *Session) start(c *conn) bool {
	return s.spawn(func() { s.write(c) }) && s.spawn(func() { s.fail(c.read()) })
}

// write is the writer of a connection. When writing fails, so does the session.
func (s *Session) write(c *conn) {
	err := c.out.run()
	if !errors.Is(err, errUnread) {
		// What ended the connection may have left its reason in what the
		// reader has yet to read.
		select {
		case <-s.done:
		case <-time.After(readerGrace):
		}
	}
	s.fail(err)
}

// readerGrace is how long a failed write waits for the reader to learn more.
const readerGrace = time.Second

// run tells the handler, starts the connections that have joined so far, and
// returns when the session is over and its goroutines are gone.
func (s *Session) run() error {
	s.config.Handler.Up(s)
	s.mu.Lock()
	s.started = true
	conns := s.conns
	s.mu.Unlock()
	for _, c := range conns {
		s.start(c)
	}
	s.spawn(s.watch)
	<-s.done
	s.work.Wait()
	s.pipes.close()
	s.config.Handler.Down(s, s.err)
	return s.err
}

// fail ends the session, once.
func (s *Session) fail(err error) {
	if errors.Is(err, wire.ErrMalformed) || errors.Is(err, message.ErrInvalid) {
		s.goodbye(wire.CodeProtocolError, err.Error())
	}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.err = true, err
	conns := s.conns
	s.mu.Unlock()
	for _, c := range conns {
		c.close(err)
	}
	close(s.done)
}

// goodbyeTimeout is what a peer that does not read delays a goodbye by.
const goodbyeTimeout = 250 * time.Millisecond

// goodbye tells the peer why, if it still listens. It does so on every
// connection, because any of them may be the first that the peer sees end.
func (s *Session) goodbye(code wire.Code, reason string) {
	s.mu.Lock()
	conns, ended := s.conns, s.ended
	s.mu.Unlock()
	if ended {
		return
	}
	deadline := time.Now().Add(goodbyeTimeout)
	for _, c := range conns {
		_ = c.nc.SetWriteDeadline(deadline)
	}
	frame := wire.AppendGoodbye(nil, wire.Goodbye{Code: code, Reason: reason})
	for _, c := range conns {
		c.out.farewell(frame, deadline)
	}
}

// release takes back what a piece of a queue held.
func (s *Session) release(c chunk) {
	if c.pipe != nil {
		s.pipes.put(c.pipe)
		return
	}
	s.pool.put(c.buffer)
}
