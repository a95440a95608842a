package hybrid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// Stream is a connection to a port of the guest. Its Close ends both directions
// without waiting: the guest still gets what was written, and what it sends itself
// is discarded.
type Stream interface {
	net.Conn
	// CloseWrite ends the direction to the guest.
	CloseWrite() error
	// Abort closes at once, with a reset where there is such a thing. After Close
	// it need not do anything.
	Abort() error
	// HostPort is the port at the host's end.
	HostPort() uint32
}

// Config of a Server.
type Config struct {
	// Dial connects to the guest. The text of its error is what the client is told.
	Dial func(ctx context.Context, port uint32) (Stream, error)
	// Status, if not nil, gives what STATUS is answered with, as JSON.
	Status func() any
	// MaxConns bounds the connections, whose buffers and descriptors cost; 0 stands
	// for 256.
	MaxConns int
	// Log, if not nil, hears of what is not a client's business.
	Log func(format string, args ...any)
}

const (
	defaultMaxConns = 256
	maxRequest      = 64  // bytes
	maxReason       = 200 // bytes
	acceptPause     = 100 * time.Millisecond
)

// times are the constants that tests shorten.
type times struct {
	request time.Duration // for a client to say what it wants
	// dial is for a guest to answer. It is shorter than clients commonly wait, so
	// that they learn the reason.
	dial time.Duration
	// linger is how long a guest may take nothing of what a client has left; it may
	// be half of it.
	linger time.Duration
}

func defaultTimes() times {
	return times{request: 5 * time.Second, dial: 3 * time.Second, linger: 2 * time.Minute}
}

// Server serves the protocol. It is for one call of Serve.
type Server struct {
	config Config
	times  times
	pool   sync.Pool
	now    atomic.Int64
	ever   atomic.Int64
	work   sync.WaitGroup
}

// New returns a server.
func New(c Config) *Server {
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	s := &Server{config: c, times: defaultTimes()}
	s.pool.New = func() any { return new([bufferBytes]byte) }
	return s
}

// Conns is how many connections there are now, and how many there have been.
func (s *Server) Conns() (now, ever int64) { return s.now.Load(), s.ever.Load() }

// Serve serves what connects until ctx ends or the listener is closed, then
// resets all connections and waits for them. It closes the listener.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.work.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Out of descriptors, most likely: there may be some in a while.
			s.config.Log("accept: %v", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		s.ever.Add(1)
		if s.now.Load() >= int64(s.config.MaxConns) {
			answer(c, "ERR too many connections")
			_ = c.Close()
			continue
		}
		s.now.Add(1)
		s.work.Go(func() {
			defer s.now.Add(-1)
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			s.serve(ctx, c)
		})
	}
}

// serve answers the request of one client.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	_ = c.SetReadDeadline(time.Now().Add(s.times.request))
	line, err := transport.ReadLine(c, maxRequest)
	if err != nil && line == "" {
		return // it has just looked whether somebody listens
	}
	var port uint32
	switch {
	case err == nil && line == "STATUS" && s.config.Status != nil:
		text, err := json.Marshal(s.config.Status())
		if err != nil {
			s.config.Log("status: %v", err)
			return
		}
		answer(c, string(text))
		return
	case err == nil:
		port, err = parseConnect(line)
	default:
		err = errRequest
	}
	var stream Stream
	if err == nil {
		stream, err = s.dial(ctx, port)
	}
	if err != nil {
		answer(c, "ERR "+message.Clean(err.Error(), maxReason))
		return
	}
	if !answer(c, fmt.Sprintf("OK %d", stream.HostPort())) {
		_ = stream.Abort()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	s.relay(ctx, c, stream)
}

func (s *Server) dial(ctx context.Context, port uint32) (Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, s.times.dial)
	defer cancel()
	return s.config.Dial(ctx, port)
}

// answer reports whether the client is still there. The first line that a socket
// gets never waits for room.
func answer(c *net.UnixConn, line string) bool {
	_, err := c.Write([]byte(line + "\n"))
	return err == nil
}
