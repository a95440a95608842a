package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

const (
	// stopGrace is how long the agent may take to end after its standard input
	// has, and the engine to remove the container.
	stopGrace = 2 * time.Second
	// killTimeout bounds removing the container by force after that.
	killTimeout = 3 * time.Second
	// explainWait is how long a read that failed waits to learn how the container has
	// ended.
	explainWait = time.Second
	// sendBuffer is what package transport asks for unix sockets, for the reason
	// given there.
	sendBuffer = 1 << 20
)

// ExitError says that the agent has ended by failing. It comes from Read or Write.
type ExitError struct {
	Status int64
	// LastLine is the last line that it wrote to standard error.
	LastLine string
}

// Error explains the exit status.
func (e *ExitError) Error() string {
	s := fmt.Sprintf("the agent ended with exit status %d", e.Status)
	if e.LastLine != "" {
		s += ": " + e.LastLine
	}
	return s
}

// conn is the standard input and output of the agent in its container.
type conn struct {
	net.Conn // attached to the container
	cli      *client.Client
	id       string
	addr     addr
	demux    *demux
	stderr   stderr
	off      func() bool // the link has been turned off

	cancel context.CancelFunc // ends the wait for the container
	ended  chan struct{}      // closed when the container is gone, or the engine
	status int64              // then, how the agent has ended
	lost   error              // then, why that is not known

	closing atomic.Bool
	close   func() error
}

var _ net.Conn = (*conn)(nil)

// stderr is the agent's standard error: written to by who reads, asked by who
// explains.
type stderr struct {
	mu    sync.Mutex
	lines transport.LineWriter
}

func (s *stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines.Write(p)
}

func (s *stderr) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines.Flush()
}

func (s *stderr) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines.Last()
}

// addr is the address of both ends.
type addr struct{ host string }

func (addr) Network() string  { return "docker" }
func (a addr) String() string { return containerName + " at " + a.host }

// newConn makes the connection of what is attached to a container. waiting tells how
// that ends.
func newConn(cli *client.Client, id, host string, attached net.Conn, waiting client.ContainerWaitResult,
	cancel context.CancelFunc, stderrLine func(string), off func() bool) *conn {
	if b, ok := attached.(interface{ SetWriteBuffer(int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer) // less is slower, but works
	}
	c := &conn{Conn: attached, cli: cli, id: id, addr: addr{host}, off: off, cancel: cancel, ended: make(chan struct{})}
	c.stderr.lines.Line = stderrLine
	c.demux = newDemux(attached, &c.stderr)
	c.close = sync.OnceValue(c.stop)
	go func() { // stop waits for it
		defer close(c.ended)
		select {
		case result := <-waiting.Result:
			c.status = result.StatusCode
			if result.Error != nil {
				c.lost = errors.New(clean(result.Error.Message))
			}
		case c.lost = <-waiting.Error:
		}
	}()
	return c
}

// Read reads the agent's standard output. At its end the error is io.EOF, or an
// *ExitError in a *net.OpError where the agent has failed.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.demux.Read(b)
	if err == io.EOF {
		c.stderr.flush()
	}
	return n, c.explain("read", err)
}

// Write writes to the agent's standard input.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain("write", err)
}

// explain turns the end of the connection into the reason for it.
func (c *conn) explain(op string, err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if c.off() {
		return c.opError(op, ErrOff)
	}
	if c.closing.Load() {
		return err
	}
	if errors.Is(err, errNotEngine) {
		return c.opError(op, err)
	}
	wait := time.NewTimer(explainWait)
	defer wait.Stop()
	select {
	case <-c.ended:
	case <-wait.C:
		return err
	}
	switch {
	case c.closing.Load():
		return err
	case c.lost != nil:
		return c.opError(op, errEngineGone)
	case c.status != 0:
		return c.opError(op, &ExitError{Status: c.status, LastLine: c.stderr.last()})
	}
	return err
}

// errEngineGone is what is known when the engine has hung up.
var errEngineGone = errors.New("the engine has ended the connection to the agent")

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "docker", Addr: c.addr, Err: err}
}

// Close ends the agent and waits until its container is gone: its input ends, and
// when that does not help it is killed.
func (c *conn) Close() error {
	c.closing.Store(true)
	return c.close()
}

func (c *conn) stop() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // what has been written arrives
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-c.ended:
	case <-grace.C:
	}
	err := c.Conn.Close()
	c.cancel()
	<-c.ended
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	// An engine that is gone takes the agent along, or Dial finds it.
	if c.lost != nil {
		_ = remove(ctx, c.cli, c.id)
	}
	return errors.Join(err, c.cli.Close())
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

// WriteRawConn gives access to the descriptor that is written to, where there is one.
func (c *conn) WriteRawConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
