package link

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Bounds of what strangers may ask of a Server.
const (
	maxHandshakes = 64 // at once
	maxSessions   = 8  // hosts at once
	maxConns      = 16 // connections of one session
)

// Server is the guest's end: it accepts connections and makes sessions of them.
type Server struct {
	config Config
	epoch  uint64

	mu       sync.Mutex
	sessions map[[16]byte]*Session
	closed   bool // no more sessions
	work     sync.WaitGroup
}

// NewServer returns a server with an epoch of its own.
func NewServer(cfg Config) *Server {
	var epoch [8]byte
	_, _ = rand.Read(epoch[:]) // never fails
	return &Server{
		config:   cfg.withDefaults(),
		epoch:    binary.BigEndian.Uint64(epoch[:]) | 1, // never 0
		sessions: map[[16]byte]*Session{},
	}
}

// Serve accepts connections until ctx ends or the listener fails; it closes the
// listener. Sessions that it made are closed, and waited for, before it returns.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer s.close()
	slots := make(chan struct{}, maxHandshakes)
	for {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if nc != nil {
				_ = nc.Close()
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept links: %w", err)
		case err != nil:
			s.config.Log.WithError(err).Warn("cannot accept a link connection")
			select { // out of descriptors, most likely: some may come free
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Close()
			continue
		}
		s.work.Go(func() {
			err := s.admit(ctx, nc)
			<-slots
			if err != nil {
				_ = nc.Close()
				s.config.Log.WithError(err).Debug("a connection did not become part of a link")
			}
		})
	}
}

// ServeConn serves the one connection of a stdio link until its session ends.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) error {
	defer s.close()
	if err := s.admit(ctx, nc); err != nil {
		_ = nc.Close()
		return err
	}
	s.mu.Lock()
	var done <-chan struct{}
	for _, session := range s.sessions {
		done = session.Done()
	}
	s.mu.Unlock()
	if done == nil {
		return nil // it ended already
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	sessions := make([]*Session, 0, len(s.sessions))
	for _, session := range s.sessions {
		sessions = append(sessions, session)
	}
	s.mu.Unlock()
	for _, session := range sessions {
		session.Close(wire.CodeShutdown, "the agent stops")
	}
	s.work.Wait()
}

// admit takes a connection through the handshake and into its session.
func (s *Server) admit(ctx context.Context, nc net.Conn) error {
	hello, welcome, err := admit(ctx, nc, s.config.Key)
	if err != nil {
		return err
	}
	release := deadline(ctx, nc, handshakeTimeout)
	session, code, reason := s.place(hello)
	if session == nil {
		defer release()
		_, _ = nc.Write(wire.AppendGoodbye(nil, wire.Goodbye{Code: code, Reason: reason}))
		return fmt.Errorf("refused a host: %s: %s", code, reason)
	}
	// Nothing else is written to this connection before it joins.
	_, err = nc.Write(welcome(s.epoch, s.config.Name))
	release()
	if err != nil {
		err = fmt.Errorf("send welcome: %w", err)
		session.fail(err)
		s.forget(session)
		return err
	}
	if !session.join(nc) {
		if hello.Index == 0 {
			// Nobody else would end what has no first connection.
			session.fail(ErrClosed)
			s.forget(session)
		}
		return ErrClosed
	}
	if hello.Index == 0 {
		s.work.Go(func() {
			_ = session.run()
			s.forget(session)
		})
	}
	return nil
}

func (s *Server) forget(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[session.id] == session {
		delete(s.sessions, session.id)
	}
}

// place finds the session that a connection belongs to, or makes it.
func (s *Server) place(h wire.Hello) (*Session, wire.Code, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.sessions[h.Session]
	switch {
	case s.closed:
		return nil, wire.CodeShutdown, "the agent stops"
	case h.Index > 0 && h.Epoch != s.epoch:
		return nil, wire.CodeStaleSession, "the agent has restarted"
	case h.Index > 0 && (session == nil || session.count != int(h.Count)):
		return nil, wire.CodeStaleSession, "the session has ended"
	case h.Index > 0:
		return session, 0, ""
	case session != nil:
		return nil, wire.CodeStaleSession, "the session exists already"
	case h.Count > maxConns:
		return nil, wire.CodeProtocolError, fmt.Sprintf("%d connections, at most %d are allowed", h.Count, maxConns)
	case len(s.sessions) >= maxSessions:
		return nil, wire.CodeTooManyLinks, fmt.Sprintf("%d hosts are connected", len(s.sessions))
	}
	session = newSession(s.config, false, h.Session, int(h.Count), s.epoch, s.config.Name, h.InitialCredit)
	s.sessions[h.Session] = session
	return session, 0, ""
}
