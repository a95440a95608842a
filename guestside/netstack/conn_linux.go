package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is an accepted connection. It behaves like a *net.TCPConn. gVisor's own
// adapter for package net (gonet) has its errors as text only, where the link has
// to tell a reset from an end, and knows no linger.
type Conn struct {
	stack         *Stack
	local, remote netip.AddrPort
	endpoint      tcpip.Endpoint
	queue         waiter.Queue
	// Tokens that endpoint may be ready again.
	readable, writable chan struct{}

	readDeadline, writeDeadline deadline
	closed                      chan struct{}
	closing, afterEnd, strayed  sync.Once
	// failure is what ended the connection, an error that gVisor tells once but
	// both directions have to know.
	failure atomic.Pointer[syscall.Errno]

	readMu  sync.Mutex
	writeMu sync.Mutex
	// Guarded by writeMu.
	payload bytes.Reader
	small   int // small writes since few were queued
}

// gVisor counts what is queued in bytes, but each write takes some 700 more, so
// that a client that does not read what comes in writes of a byte would hold
// hundreds of megabytes. So small writes are counted as well.
const (
	smallWrite     = 256 // bytes
	maxSmallWrites = 4096
)

var _ net.Conn = (*Conn)(nil)

func newConn(s *Stack, local, remote netip.AddrPort) *Conn {
	c := &Conn{
		stack: s, local: local, remote: remote,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.readDeadline.init()
	c.writeDeadline.init()
	c.notify(waiter.ReadableEvents, c.readable)
	c.notify(waiter.WritableEvents, c.writable)
	return c
}

// notify puts a token into ready at each of the events, for good.
func (c *Conn) notify(events waiter.EventMask, ready chan struct{}) {
	entry := waiter.NewFunctionEntry(events|waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) {
		select {
		case ready <- struct{}{}:
		default:
		}
	})
	c.queue.EventRegister(&entry)
}

// Read implements net.Conn. A connection that the client reset returns
// ECONNRESET, after the bytes that came before.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		if err := c.usable(&c.readDeadline); err != nil {
			return 0, c.wrap("read", err)
		}
		w := tcpip.SliceWriter(b)
		result, err := c.endpoint.Read(&w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			c.moderate(result.Count)
			return result.Count, nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.readable, &c.readDeadline); err != nil {
				return 0, c.wrap("read", err)
			}
		case *tcpip.ErrClosedForReceive:
			if failure := c.failure.Load(); failure != nil {
				return 0, c.wrap("read", *failure)
			}
			return 0, io.EOF
		default:
			return 0, c.wrap("read", c.fail(err))
		}
	}
}

// moderate lets the receive buffer grow with what was read.
func (c *Conn) moderate(n int) {
	if m, ok := c.endpoint.(interface{ ModerateRecvBuf(int) }); ok {
		m.ModerateRecvBuf(n)
	}
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	defer c.payload.Reset(nil)
	for n := 0; n < len(b); {
		if err := c.usable(&c.writeDeadline); err != nil {
			return n, c.wrap("write", err)
		}
		c.payload.Reset(b[n:])
		written, err := c.endpoint.Write(&c.payload, tcpip.WriteOptions{})
		n += int(written)
		switch err.(type) {
		case nil:
			c.countSmall(int(written))
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.writable, &c.writeDeadline); err != nil {
				return n, c.wrap("write", err)
			}
		case *tcpip.ErrClosedForSend:
			if failure := c.failure.Load(); failure != nil {
				return n, c.wrap("write", *failure)
			}
			return n, c.wrap("write", syscall.EPIPE)
		default:
			return n, c.wrap("write", c.fail(err))
		}
	}
	return len(b), nil
}

// countSmall notes a write. When too many small ones may be queued it makes the
// buffer so small that the next has to wait. gVisor makes it large again, and
// wakes the writer, with an acknowledgement.
func (c *Conn) countSmall(n int) {
	if n >= smallWrite {
		return
	}
	if c.small++; c.small < maxSmallWrites {
		return
	}
	options := c.endpoint.SocketOptions()
	size := options.GetSendBufferSize()
	options.SetSendBufferSize(maxSmallWrites, false)
	if c.endpoint.Readiness(waiter.WritableEvents) != 0 {
		// Less than a byte for each is queued, or nothing will be any more.
		options.SetSendBufferSize(size, false)
		c.small = 0
	}
}

// fail remembers what ended the connection.
func (c *Conn) fail(err tcpip.Error) error {
	translated := errno(err)
	if number, ok := translated.(syscall.Errno); ok {
		c.failure.CompareAndSwap(nil, &number)
	}
	return translated
}

func (c *Conn) usable(d *deadline) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-d.wait():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

func (c *Conn) wait(ready <-chan struct{}, d *deadline) error {
	select {
	case <-ready:
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-d.wait():
		return os.ErrDeadlineExceeded
	}
}

// Close implements net.Conn. Bytes that were written are still sent, unless
// SetLinger(0) was called. With bytes left unread, the client sees a reset.
func (c *Conn) Close() error {
	err := c.wrap("close", net.ErrClosed)
	c.closing.Do(func() {
		close(c.closed)
		c.ending()
		c.endpoint.Close()
		err = nil
	})
	return err
}

// WaitReset waits, once Read has returned io.EOF, until the client resets the
// connection, and returns ECONNRESET, or until Close, and returns net.ErrClosed.
func (c *Conn) WaitReset() error {
	for {
		if failure := c.failure.Load(); failure != nil {
			return c.wrap("wait", *failure)
		}
		switch tcp.EndpointState(c.endpoint.State()) {
		case tcp.StateError, tcp.StateClose:
			if err := c.endpoint.LastError(); err != nil { // not an orderly end
				_ = c.fail(err)
				return c.wrap("wait", syscall.ECONNRESET)
			}
		}
		if err := c.wait(c.readable, nil); err != nil {
			return c.wrap("wait", err)
		}
	}
}

// CloseWrite ends the stream towards the client.
func (c *Conn) CloseWrite() error {
	if err := c.usable(nil); err != nil {
		return c.wrap("close", err)
	}
	c.ending()
	if err := c.endpoint.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.wrap("close", errno(err))
	}
	return nil
}

// SetLinger with 0 makes Close reset the connection.
func (c *Conn) SetLinger(seconds int) error {
	c.endpoint.SocketOptions().SetLinger(tcpip.LingerOption{
		Enabled: seconds >= 0,
		Timeout: time.Duration(max(seconds, 0)) * time.Second,
	})
	return nil
}

// LocalAddr is the host address.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readDeadline, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeDeadline, t) }

func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	if err := c.usable(nil); err != nil {
		return c.wrap("set", err)
	}
	d.set(t)
	return nil
}

func (c *Conn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
