package link

import (
	"errors"
	"net"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// This file is the way from the link to the socket.

// writeAttempt is the argument and result of one non-blocking write.
type writeAttempt struct {
	bytes []byte
	n     int
	err   error
	call  func(uintptr) bool
}

// expect is called by the reader for each data frame. It reports false when the
// peer sends more than it was allowed to, or after its fin.
func (s *Stream) expect(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed -= int64(n)
	return s.allowed >= 0 && !s.gotFin
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
	if session.queued.Add(int64(p.n)) > session.maxQueued.Load() {
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
	if session.queued.Add(int64(len(p))) > session.maxQueued.Load() {
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
	// what a bulk flow waits for. Where every write is left to drain, it keeps up
	// when nothing has come in the meantime.
	keepsUp := !s.draining || s.raw == nil && s.queue.size == 0
	if keepsUp && s.window < maxWindow {
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
			// A stream that was cut has lost its queue: an orderly end would
			// pass for all of it.
			reset, fin := s.resetting, s.gotFin && !s.finDone && !s.closed
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
		s.reset(CodeOf(err))
	}
}
