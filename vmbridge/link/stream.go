package link

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Socket is what a stream carries: a *net.TCPConn, or something like it. Where
// it has SetLinger(int) error, a reset of the flow resets the socket. Where it has
// no descriptor but WaitReset() error, a reset after the end of its data is passed
// on: the method returns that error, or another when the socket is closed.
type Socket interface {
	net.Conn
	CloseWrite() error
}

// resetGrace is how long a reset waits for bytes that came before it and that
// the socket has not taken yet.
const resetGrace = time.Second

// Stream is one TCP flow.
//
// Lock order: conn.mu, then mu. The fields below mu are guarded by it. The
// socket is written by one goroutine at a time: by the connection's reader
// while draining is false, else by drain.
type Stream struct {
	conn        *conn
	id          uint32
	source      netip.AddrPort
	destination netip.AddrPort
	stats       *Stats
	// inbound and outbound count payload from and to the link.
	inbound, outbound *atomic.Uint64

	mu     sync.Mutex
	socket Socket
	// answered is told once what the peer said to a stream that waits for it.
	answered func(wire.Code)
	// Towards the link.
	credit   int64 // bytes that the peer still takes
	starved  bool  // pump waits for credit
	moreRoom *sync.Cond
	sentFin  bool
	// From the link.
	queue     queue
	draining  bool
	gotFin    bool
	finDone   bool  // the socket's write side is shut down
	writeDead bool  // the socket takes no more bytes
	allowed   int64 // bytes that the peer may still send
	consumed  int64 // bytes taken since the last credit frame
	window    int64
	resetting bool // a reset came while bytes were queued
	closed    bool

	raw       syscall.RawConn // nil: no non-blocking calls
	attempt   writeAttempt
	readiness readAttempt
}

func newStream(c *conn, id uint32, source, destination netip.AddrPort, stats *Stats) *Stream {
	return &Stream{
		conn: c, id: id, source: source, destination: destination, stats: stats,
		credit:  int64(c.session.peerCredit),
		allowed: initialCredit,
		window:  initialCredit,
	}
}

// Source is the client's address, as the opening side saw it.
func (s *Stream) Source() netip.AddrPort { return s.source }

// Destination is what the opening side wants to be connected to.
func (s *Stream) Destination() netip.AddrPort { return s.destination }

// Count has a stream that the peer opened counted in stats, and not in the
// session's. It is called before Accept.
func (s *Stream) Count(stats *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.stats.Flows.Add(-1)
	stats.Flows.Add(1)
	s.stats, s.inbound, s.outbound = stats, &stats.BytesIn, &stats.BytesOut
}

// Attach gives a stream of Session.AskStream the socket to carry, once the peer
// has said that it is connected. The stream owns the socket from here on.
func (s *Stream) Attach(socket Socket) { s.attach(socket) }

// Abort ends a stream on both sides, and resets its socket where it has one. A
// function that waits for the answer of Session.AskStream is not called.
func (s *Stream) Abort() {
	s.mu.Lock()
	s.answered = nil
	s.mu.Unlock()
	s.reset(wire.CodeConnectionReset)
}

// Accept answers a stream that the peer opened: socket is connected to its
// destination. The stream owns the socket from here on.
func (s *Stream) Accept(socket Socket) {
	s.conn.out.post(wire.AppendFrame(nil, wire.TypeOpened, s.id, nil))
	s.attach(socket)
}

// Refuse answers a stream that the peer opened and that cannot be connected.
func (s *Stream) Refuse(code wire.Code) {
	if s.end() {
		s.conn.out.post(wire.AppendCode(nil, wire.TypeRefused, s.id, code))
	}
}

// attach starts carrying.
func (s *Stream) attach(socket Socket) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		abortSocket(socket)
		return
	}
	s.socket = socket
	if raw, ok := transport.RawWrite(socket); ok {
		s.raw = raw
		s.attempt.call = func(fd uintptr) bool {
			s.attempt.n, s.attempt.err = tryWrite(fd, s.attempt.bytes)
			return true
		}
		s.readiness.call = s.tryPump
	} else {
		s.moreRoom = sync.NewCond(&s.mu)
	}
	if s.queue.size > 0 || s.gotFin {
		s.startDrain()
	}
	if s.resetting {
		_ = socket.SetWriteDeadline(time.Now().Add(resetGrace))
	}
	s.mu.Unlock()
	if !s.conn.session.spawn(s.pump) {
		s.abort()
	}
}

// reset ends the stream on both sides.
func (s *Stream) reset(code wire.Code) {
	if s.abort() {
		s.conn.out.post(wire.AppendCode(nil, wire.TypeReset, s.id, code))
	}
}

// tellAnswer passes the peer's answer on, once; 0 is that it is connected. It
// reports whether somebody waited for it.
func (s *Stream) tellAnswer(code wire.Code) bool {
	s.mu.Lock()
	answered := s.answered
	s.answered = nil
	s.mu.Unlock()
	if answered == nil {
		return false
	}
	answered(code)
	return true
}

func (s *Stream) cut(notify bool) {
	s.tellAnswer(wire.CodeShutdown)
	if notify {
		s.reset(wire.CodeConnectionReset)
	} else {
		s.abort()
	}
}

// peerReset is called by the reader: the peer's socket was reset, or could not
// be connected.
func (s *Stream) peerReset(code wire.Code) {
	if s.tellAnswer(code) {
		s.end()
		return
	}
	s.mu.Lock()
	if s.closed || s.resetting {
		s.mu.Unlock()
		return
	}
	if s.queue.size > 0 || s.draining {
		s.resetting = true
		if s.socket != nil {
			_ = s.socket.SetWriteDeadline(time.Now().Add(resetGrace))
		}
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.abort()
}

// over implements flow.
func (s *Stream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// counted implements flow.
func (s *Stream) counted() *Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// abort ends the stream here with a reset of its socket. It reports whether the
// stream was alive.
func (s *Stream) abort() bool {
	if !s.end() {
		return false
	}
	if s.socket != nil {
		abortSocket(s.socket)
	}
	return true
}

// finish ends a stream whose two directions are through.
func (s *Stream) finish() {
	if s.end() {
		_ = s.socket.Close()
	}
}

// end takes the stream out of its connection, once.
func (s *Stream) end() bool {
	session := s.conn.session
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.closed = true
	for _, c := range s.queue.take() {
		session.queued.Add(-int64(c.size()))
		session.release(c)
	}
	session.growth.Add(initialCredit - s.window)
	if s.moreRoom != nil {
		s.moreRoom.Broadcast()
	}
	stats := s.stats
	s.mu.Unlock()
	s.conn.remove(s.id)
	stats.Flows.Add(-1)
	return true
}

// abortSocket closes a socket so that its peer sees a reset.
func abortSocket(socket Socket) {
	if l, ok := socket.(interface{ SetLinger(seconds int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = socket.Close()
}
