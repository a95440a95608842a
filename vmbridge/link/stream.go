package link

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Socket is what a stream carries: a *net.TCPConn, or something like it. Where
// it has SetLinger(int) error, a reset of the flow resets the socket.
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

// writeAttempt is the argument and result of one non-blocking write.
type writeAttempt struct {
	bytes []byte
	n     int
	err   error
	call  func(uintptr) bool
}

// readAttempt is the result of one non-blocking read.
type readAttempt struct {
	class  int     // of the next buffer
	buffer *buffer // holds the payload behind a header's room, or
	pipe   *pipe   // holds the payload
	n      int     // of payload
	err    error
	call   func(uintptr) bool
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
	if canTry {
		if sc, ok := socket.(syscall.Conn); ok {
			s.raw, _ = sc.SyscallConn()
		}
	}
	if s.raw != nil {
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
	s.mu.Unlock()
	if !s.conn.session.spawn(s.pump) {
		s.abort()
	}
}

// pump carries bytes from the socket to the link, until the stream ends.
func (s *Stream) pump() {
	err := s.pumpData()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if s.writeDead && errors.Is(err, io.EOF) {
		// A socket that failed for writing was reset, even when reading ends
		// like an orderly end of data: the write took the error away.
		err = syscall.ECONNRESET
	}
	if !errors.Is(err, io.EOF) {
		s.mu.Unlock()
		s.reset(codeOf(err))
		return
	}
	s.sentFin = true
	finished := s.finDone
	s.mu.Unlock()
	s.conn.out.post(wire.AppendFrame(nil, wire.TypeFin, s.id, nil))
	if finished {
		s.finish()
		return
	}
	if s.raw == nil {
		return
	}
	// The peer of the socket may still reset it, which no read reports any
	// more: wait for the kernel to tell.
	err = s.waitRead(func(fd uintptr) bool {
		s.readiness.err = pendingError(fd)
		return s.readiness.err != nil
	})
	if err == nil {
		err = s.readiness.err
	}
	s.reset(codeOf(err))
}

// waitRead calls ready when the socket may be readable, until it reports true.
func (s *Stream) waitRead(ready func(fd uintptr) bool) error {
	for {
		err := s.raw.Read(ready)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// addCredit woke us, or an earlier call that needed it no more.
		_ = s.socket.SetReadDeadline(time.Time{})
	}
}

// pumpData returns why there is no more data: io.EOF or an error.
func (s *Stream) pumpData() error {
	r := &s.readiness
	var header [wire.HeaderSize]byte
	for {
		r.buffer, r.pipe, r.n, r.err = nil, nil, 0, nil
		s.read()
		var sent error
		if r.n > 0 {
			h := wire.Header{Type: wire.TypeData, Length: r.n, Flow: s.id}
			if r.pipe != nil {
				wire.PutHeader(header[:], h)
				sent = s.conn.out.writePipe(header[:], r.pipe)
			} else {
				wire.PutHeader(r.buffer.bytes, h)
				sent = s.conn.out.write(r.buffer.bytes[:wire.HeaderSize+r.n])
			}
			s.outbound.Add(uint64(r.n))
			s.adapt(r.n)
		}
		if r.buffer != nil {
			s.conn.session.pool.put(r.buffer)
		}
		if r.pipe != nil {
			s.conn.session.pipes.put(r.pipe)
		}
		if sent != nil {
			return sent
		}
		if r.err != nil {
			return r.err
		}
	}
}

// adapt chooses the next buffer by how full this one was. The largest class
// also means to splice where that can be.
func (s *Stream) adapt(n int) {
	r := &s.readiness
	switch {
	case r.pipe != nil:
		if n < spliceBytes/2 {
			r.class = mediumBuffer
		}
	case wire.HeaderSize+n == len(r.buffer.bytes):
		r.class = min(r.class+1, largeBuffer)
	case r.class > smallBuffer && n < bufferSizes[r.class-1]/2:
		r.class--
	}
}

// read waits for credit and data, and leaves them in readiness.
func (s *Stream) read() {
	if s.raw == nil {
		s.readBlocking()
		return
	}
	if err := s.waitRead(s.readiness.call); err != nil {
		s.readiness.err = err
	}
}

// tryPump is called with the descriptor when it may be readable. It takes a
// buffer or a pipe only when there is credit, and keeps it only when there was
// data.
func (s *Stream) tryPump(fd uintptr) bool {
	r := &s.readiness
	room := s.takeCredit()
	if room == 0 {
		// The peer takes nothing, but a reset of the socket goes through.
		r.err = pendingError(fd)
		return r.err != nil
	}
	session := s.conn.session
	var n int
	var again bool
	var err error
	if p := s.bulkPipe(); p != nil {
		n, again, err = p.fill(fd, int(min(room, wire.MaxData)))
		if n == 0 {
			session.pipes.put(p)
		} else {
			r.pipe = p
		}
	} else {
		b := session.pool.get(r.class)
		payload := b.bytes[wire.HeaderSize:]
		n, again, err = tryRead(fd, payload[:min(room, int64(len(payload)))])
		if n == 0 {
			session.pool.put(b)
		} else {
			r.buffer = b
		}
	}
	if again {
		return false
	}
	s.useCredit(n)
	r.n, r.err = n, err
	if n == 0 && err == nil {
		r.err = io.EOF
	}
	return true
}

// bulkPipe gives a pipe for a stream that moves bulk, or nil.
func (s *Stream) bulkPipe() *pipe {
	if !canSplice || s.readiness.class < largeBuffer || !s.conn.splices {
		return nil
	}
	return s.conn.session.pipes.get()
}

func (s *Stream) readBlocking() {
	r := &s.readiness
	s.mu.Lock()
	for s.credit == 0 && !s.closed {
		s.moreRoom.Wait()
	}
	room, closed := s.credit, s.closed
	s.mu.Unlock()
	if closed {
		r.err = net.ErrClosed
		return
	}
	r.buffer = s.conn.session.pool.get(r.class)
	payload := r.buffer.bytes[wire.HeaderSize:]
	r.n, r.err = s.socket.Read(payload[:min(room, int64(len(payload)))])
	s.useCredit(r.n)
}

// takeCredit tells how much may be sent. 0 asks addCredit for a wake-up.
func (s *Stream) takeCredit() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved = s.credit == 0
	return s.credit
}

func (s *Stream) useCredit(n int) {
	s.mu.Lock()
	s.credit -= int64(n)
	s.mu.Unlock()
}

// addCredit is called by the reader.
func (s *Stream) addCredit(n uint32) {
	s.mu.Lock()
	s.credit += int64(n)
	wake := s.starved && s.raw != nil && !s.closed
	s.starved = false
	if s.moreRoom != nil {
		s.moreRoom.Signal()
	}
	socket := s.socket
	s.mu.Unlock()
	if wake {
		_ = socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// expect is called by the reader for each data frame. It reports false when the
// peer sends more than it was allowed to.
func (s *Stream) expect(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed -= int64(n)
	return s.allowed >= 0
}

// deliver takes payload from the reader. It does not block.
func (s *Stream) deliver(p []byte) {
	s.mu.Lock()
	if s.closed || s.resetting {
		s.mu.Unlock()
		return
	}
	if s.writeDead {
		s.consume(len(p))
		return
	}
	s.inbound.Add(uint64(len(p)))
	if s.draining || s.raw == nil {
		s.enqueue(p)
		return
	}
	s.mu.Unlock()

	s.attempt.bytes, s.attempt.n, s.attempt.err = p, 0, nil
	err := s.raw.Write(s.attempt.call)
	s.attempt.bytes = nil
	if err == nil {
		err = s.attempt.err
	}
	if err != nil {
		s.writeFailed(err)
		return
	}
	n := s.attempt.n
	s.mu.Lock()
	if n < len(p) && !s.closed {
		s.consumed += int64(n)
		s.enqueue(p[n:])
		return
	}
	s.consume(n)
}

// splicable tells whether the socket takes payload from a pipe.
func (s *Stream) splicable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw != nil
}

// deliverPipe takes payload that the reader holds in a pipe, and the pipe.
func (s *Stream) deliverPipe(p *pipe) {
	pipes := &s.conn.session.pipes
	size := p.n
	s.mu.Lock()
	if s.closed || s.resetting {
		s.mu.Unlock()
		pipes.put(p)
		return
	}
	if s.writeDead {
		s.consume(size)
		pipes.put(p)
		return
	}
	s.inbound.Add(uint64(size))
	if s.draining {
		s.enqueuePipe(p)
		return
	}
	s.mu.Unlock()

	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		failed = p.drain(fd)
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		pipes.put(p)
		s.writeFailed(err)
		return
	}
	s.mu.Lock()
	if p.n > 0 && !s.closed {
		s.consumed += int64(size - p.n)
		s.enqueuePipe(p)
		return
	}
	s.consume(size)
	pipes.put(p)
}

// enqueuePipe is called with mu held and releases it.
func (s *Stream) enqueuePipe(p *pipe) {
	session := s.conn.session
	if session.queued.Add(int64(p.n)) > session.config.MaxQueuedBytes {
		session.queued.Add(-int64(p.n))
		s.mu.Unlock()
		session.pipes.put(p)
		s.reset(wire.CodeResources)
		return
	}
	s.queue.addPipe(p)
	if !s.draining {
		s.startDrain()
	}
	s.mu.Unlock()
}

// enqueue is called with mu held and releases it.
func (s *Stream) enqueue(p []byte) {
	session := s.conn.session
	if session.queued.Add(int64(len(p))) > session.config.MaxQueuedBytes {
		session.queued.Add(-int64(len(p)))
		s.mu.Unlock()
		s.reset(wire.CodeResources)
		return
	}
	s.queue.add(&session.pool, p)
	if s.socket != nil && !s.draining {
		s.startDrain()
	}
	s.mu.Unlock()
}

// consume counts bytes that are gone and grants credit for them. mu is held and
// is released.
func (s *Stream) consume(n int) {
	s.consumed += int64(n)
	if s.consumed < s.window/2 || s.gotFin || s.closed {
		s.mu.Unlock()
		return
	}
	grant := s.consumed
	s.consumed = 0
	// A reader that keeps up deserves a larger window: the credit must not be
	// what a bulk flow waits for.
	if !s.draining && s.window < maxWindow {
		if growth := &s.conn.session.growth; growth.Add(s.window) <= maxGrowth {
			grant += s.window
			s.window *= 2
		} else {
			growth.Add(-s.window)
		}
	}
	s.allowed += grant
	s.mu.Unlock()
	s.conn.out.post(wire.AppendCredit(nil, s.id, uint32(grant)))
}

// startDrain is called with mu held.
func (s *Stream) startDrain() {
	s.draining = s.conn.session.spawn(s.drain)
}

// drain writes the queue to the socket, blocking, until it is empty.
func (s *Stream) drain() {
	session := s.conn.session
	for {
		s.mu.Lock()
		chunks := s.queue.take()
		if len(chunks) == 0 {
			s.draining = false
			reset, fin := s.resetting, s.gotFin && !s.finDone
			s.mu.Unlock()
			switch {
			case reset:
				s.abort()
			case fin:
				s.shutdownWrite()
			}
			return
		}
		s.mu.Unlock()
		var failed error
		for _, c := range chunks {
			size := c.size()
			if failed == nil {
				failed = s.writeChunk(c)
			}
			session.release(c)
			session.queued.Add(-int64(size))
			s.mu.Lock()
			s.consume(size)
		}
		if failed != nil {
			s.writeFailed(failed)
		}
	}
}

// writeChunk writes a piece of the queue, blocking.
func (s *Stream) writeChunk(c chunk) error {
	if c.pipe != nil {
		return drainPipe(s.raw, c.pipe)
	}
	_, err := s.socket.Write(c.buffer.bytes[:c.end])
	return err
}

// fin is called by the reader: the peer sends no more data.
func (s *Stream) fin() {
	s.mu.Lock()
	s.gotFin = true
	if s.closed || s.draining || s.socket == nil {
		s.mu.Unlock()
		return
	}
	if s.raw == nil {
		// Shutting down may block where writing does.
		s.startDrain()
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.shutdownWrite()
}

func (s *Stream) shutdownWrite() {
	err := s.socket.CloseWrite()
	s.mu.Lock()
	s.finDone = true
	finished := s.sentFin
	s.mu.Unlock()
	if err != nil && !errors.Is(err, net.ErrClosed) && !isNotConnected(err) {
		s.writeFailed(err)
		return
	}
	if finished {
		s.finish()
	}
}

// writeFailed notes that the socket takes no more bytes. What it still has for
// us is carried before the reset, as it would be without us in between.
func (s *Stream) writeFailed(err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.writeDead = true
	over := s.sentFin || s.resetting
	s.mu.Unlock()
	if over {
		s.reset(codeOf(err))
	}
}

// reset ends the stream on both sides.
func (s *Stream) reset(code wire.Code) {
	if s.abort() {
		s.conn.out.post(wire.AppendCode(nil, wire.TypeReset, s.id, code))
	}
}

func (s *Stream) cut(notify bool) {
	if notify {
		s.reset(wire.CodeConnectionReset)
	} else {
		s.abort()
	}
}

// peerReset is called by the reader: the peer's socket was reset, or could not
// be connected.
func (s *Stream) peerReset() {
	s.mu.Lock()
	if s.closed || s.resetting {
		s.mu.Unlock()
		return
	}
	if s.draining {
		s.resetting = true
		socket := s.socket
		s.mu.Unlock()
		_ = socket.SetWriteDeadline(time.Now().Add(resetGrace))
		return
	}
	s.mu.Unlock()
	s.abort()
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
	s.mu.Unlock()
	s.conn.remove(s.id)
	s.stats.Flows.Add(-1)
	return true
}

// abortSocket closes a socket so that its peer sees a reset.
func abortSocket(socket Socket) {
	if l, ok := socket.(interface{ SetLinger(seconds int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = socket.Close()
}
