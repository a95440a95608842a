package link

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// This file is the way from the socket to the link.

// readAttempt is the result of one non-blocking read.
type readAttempt struct {
	class  int     // of the next buffer
	buffer *buffer // holds the payload behind a header's room, or
	pipe   *pipe   // holds the payload
	n      int     // of payload
	err    error
	call   func(uintptr) bool
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
		s.reset(CodeOf(err))
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
	// The peer of the socket may still reset it, which no read reports any
	// more: wait for somebody to tell.
	if s.raw == nil {
		if w, ok := s.socket.(interface{ WaitReset() error }); ok {
			s.reset(CodeOf(w.WaitReset()))
		}
		return
	}
	err = s.waitRead(func(fd uintptr) bool {
		s.readiness.err = pendingError(fd)
		return s.readiness.err != nil
	})
	if err == nil {
		err = s.readiness.err
	}
	s.reset(CodeOf(err))
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

// maxCredit keeps a peer from making the sum overflow.
const maxCredit = 1 << 62

// addCredit is called by the reader.
func (s *Stream) addCredit(n uint32) {
	s.mu.Lock()
	s.credit = min(s.credit+int64(n), maxCredit)
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
