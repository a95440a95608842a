package link

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// Bounds of what waits for a busy connection.
const (
	// coalesceBytes is the largest frame that is copied to the pending bytes
	// when the connection is busy; larger ones wait for their turn with the
	// caller's own buffer.
	coalesceBytes = 16 << 10
	// pendingBytes is when writers wait rather than add to the pending bytes.
	pendingBytes = 256 << 10
	// unreadBytes is how much may be pending in all. Only frames that must not
	// block come this far, so the peer has stopped reading while it made us
	// answer.
	unreadBytes = 4 << 20

	// openBytes is how much may be pending for a datagram flow to be opened. What
	// opens flows is told to wait by nobody, and the peer has more work with each
	// than we have.
	openBytes = 32 << 10

	// datagramBytes bounds the queue of datagrams. A queue that stands only adds
	// delay: datagrams older than datagramAge are dropped, but for the last
	// shortQueue bytes of them, so that no lone datagram is lost because the
	// machine was busy.
	datagramBytes = 256 << 10
	shortQueue    = 64 << 10
	datagramAge   = 50 * time.Millisecond

	// writeRounds is how often a writer also writes what others have queued
	// before it leaves that to the sender's own goroutine.
	writeRounds = 4
)

var errUnread = errors.New("the peer does not read what it asked for")

// sender is the write side of one transport connection.
//
// Exactly one goroutine at a time owns the right to write (busy). Ownership is
// passed on, under mu: to the longest waiting writer, else to the sender's own
// goroutine when frames are pending that the owner will not write itself, else
// it is given up.
type sender struct {
	conn net.Conn
	raw  syscall.RawConn // nil: the transport has no non-blocking write

	mu      sync.Mutex
	busy    bool
	pending []byte // frames that wait, in order
	spare   []byte // the other of two buffers that pending swaps with
	waiting []chan struct{}
	queued  []queuedDatagrams
	inQueue int // bytes in queued
	err     error

	// kick passes ownership to the goroutine run.
	kick chan struct{}
	done chan struct{}
	// attempt is the argument and result of try, which the owner uses.
	attempt struct {
		frame []byte
		n     int
		err   error
	}
	try func(fd uintptr) bool
}

// queuedDatagrams is one batch of datagram frames.
type queuedDatagrams struct {
	frames  []byte
	count   int
	since   time.Time
	dropped func(int)
}

func newSender(conn net.Conn) *sender {
	s := &sender{conn: conn, kick: make(chan struct{}, 1), done: make(chan struct{})}
	if raw, ok := transport.RawWrite(conn); ok {
		s.raw = raw
	}
	s.try = func(fd uintptr) bool {
		s.attempt.n, s.attempt.err = tryWrite(fd, s.attempt.frame)
		return true
	}
	return s
}

// run writes what non-blocking callers could not, until the sender fails, and
// says why it did.
func (s *sender) run() error {
	for {
		select {
		case <-s.kick:
			s.pass(true)
		case <-s.done:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.err
		}
	}
}

// fail ends the sender: what waits is given up, and so is a write that is stuck.
func (s *sender) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.done)
	_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	for _, turn := range s.waiting {
		close(turn)
	}
	s.waiting = nil
}

// write sends one frame, or several, from the caller's buffer. It blocks while
// the connection does.
func (s *sender) write(frame []byte) error {
	s.mu.Lock()
	if s.busy && s.err == nil && len(frame) <= coalesceBytes && len(s.pending)+len(frame) <= pendingBytes {
		s.pending = append(s.pending, frame...)
		s.mu.Unlock()
		return nil
	}
	return s.writeInTurn(frame, nil)
}

// farewell sends a last frame, before the writers that wait. It gives up at the
// deadline, which is also that of a write that is under way.
func (s *sender) farewell(frame []byte, deadline time.Time) {
	s.mu.Lock()
	if s.busy && s.err == nil {
		turn := make(chan struct{})
		s.waiting = slices.Insert(s.waiting, 0, turn)
		s.mu.Unlock()
		patience := time.NewTimer(time.Until(deadline))
		defer patience.Stop()
		select {
		case <-turn:
		case <-patience.C:
			// Nobody writes again: the caller ends the connection.
			return
		}
		s.mu.Lock()
		s.busy = false // ours to take
	}
	_ = s.writeInTurn(frame, nil)
}

// writePipe sends one frame: its header, and its payload from a pipe.
func (s *sender) writePipe(header []byte, p *pipe) error {
	s.mu.Lock()
	return s.writeInTurn(header, p)
}

// writeInTurn waits until it owns the connection, writes what is pending before
// the frame, the frame, and the pipe if there is one. mu is held and released.
func (s *sender) writeInTurn(frame []byte, p *pipe) error {
	if s.busy && s.err == nil {
		turn := make(chan struct{})
		s.waiting = append(s.waiting, turn)
		s.mu.Unlock()
		<-turn
		s.mu.Lock()
	}
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	s.busy = true
	head := s.takePending()
	s.mu.Unlock()

	var err error
	if len(head) > 0 {
		both := net.Buffers{head, frame}
		_, err = both.WriteTo(s.conn)
	} else {
		_, err = s.conn.Write(frame)
	}
	s.keep(head)
	if err == nil && p != nil {
		err = drainPipe(s.raw, p)
	}
	if err != nil {
		s.fail(err)
		return err
	}
	s.pass(false)
	return nil
}

// drainPipe moves a whole pipe to a socket, waiting while the socket is full.
func drainPipe(raw syscall.RawConn, p *pipe) error {
	var failed error
	err := raw.Write(func(fd uintptr) bool {
		failed = p.drain(fd)
		return failed != nil || p.n == 0
	})
	if err != nil {
		return err
	}
	return failed
}

// pass gives up the ownership that the caller holds. Pending frames are written
// first, blocking, for as long as the caller has patience.
func (s *sender) pass(patient bool) {
	for round := 0; ; round++ {
		s.mu.Lock()
		switch {
		case s.err != nil:
			s.mu.Unlock()
			return
		case len(s.waiting) > 0:
			next := s.waiting[0]
			s.waiting = s.waiting[1:]
			s.mu.Unlock()
			close(next)
			return
		}
		if len(s.pending) == 0 && len(s.queued) == 0 {
			s.busy = false
			s.mu.Unlock()
			return
		}
		if !patient && round == writeRounds {
			s.mu.Unlock()
			s.kick <- struct{}{}
			return
		}
		frames := s.takePending()
		s.mu.Unlock()
		var err error
		if len(frames) > 0 {
			_, err = s.conn.Write(frames)
		}
		s.keep(frames)
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// post sends a frame without ever blocking the caller.
func (s *sender) post(frame []byte) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	if s.busy {
		s.pending = append(s.pending, frame...)
		full := len(s.pending) > unreadBytes
		s.mu.Unlock()
		if full {
			s.fail(errUnread)
		}
		return
	}
	s.busy = true
	s.mu.Unlock()
	s.writeNow(frame)
}

// congested tells whether small frames have piled up. Bulk does not count: its
// writers wait for their turn.
func (s *sender) congested() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) > openBytes
}

// postDatagrams sends datagram frames without blocking. When the connection is
// busy they wait a little; dropped is told how many were given up.
func (s *sender) postDatagrams(frames []byte, count int, dropped func(int)) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	if s.busy {
		full := s.inQueue+len(frames) > datagramBytes
		if !full {
			s.queued = append(s.queued, queuedDatagrams{append([]byte(nil), frames...), count, time.Now(), dropped})
			s.inQueue += len(frames)
		}
		s.mu.Unlock()
		if full {
			dropped(count)
		}
		return
	}
	s.busy = true
	s.mu.Unlock()
	s.writeNow(frames)
}

// writeNow writes what the connection takes at once and leaves the rest to the
// sender's goroutine. The caller owns the connection and gives it up.
func (s *sender) writeNow(frame []byte) {
	if s.raw != nil {
		s.attempt.frame, s.attempt.n, s.attempt.err = frame, 0, nil
		err := s.raw.Write(s.try)
		if err == nil {
			err = s.attempt.err
		}
		frame = frame[s.attempt.n:]
		s.attempt.frame = nil
		if err != nil {
			s.fail(err)
			return
		}
	}
	s.mu.Lock()
	if len(frame) > 0 {
		// What others queued meanwhile comes after the rest of this frame.
		s.pending = append(append(s.spare[:0], frame...), s.pending...)
		s.spare = nil
	}
	switch {
	case s.err != nil:
	case len(frame) == 0 && len(s.waiting) > 0:
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
		close(next)
		return
	case len(s.pending) == 0 && len(s.queued) == 0:
		s.busy = false
	default:
		s.mu.Unlock()
		s.kick <- struct{}{}
		return
	}
	s.mu.Unlock()
}

// takePending gives the caller, who owns the connection, what waits. The caller
// gives the memory back with keep. mu is held.
func (s *sender) takePending() []byte {
	frames := s.pending
	s.pending, s.spare = s.spare[:0], nil
	if len(s.queued) > 0 {
		now := time.Now()
		for _, q := range s.queued {
			stands := s.inQueue > shortQueue
			s.inQueue -= len(q.frames)
			if stands && now.Sub(q.since) > datagramAge {
				q.dropped(q.count)
				continue
			}
			frames = append(frames, q.frames...)
		}
		s.queued, s.inQueue = s.queued[:0], 0
	}
	return frames
}

func (s *sender) keep(frames []byte) {
	if cap(frames) == 0 || cap(frames) > 2*pendingBytes {
		return
	}
	s.mu.Lock()
	s.spare = frames[:0]
	s.mu.Unlock()
}
