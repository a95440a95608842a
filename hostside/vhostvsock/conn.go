package vhostvsock

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Addr is one end of a connection.
type Addr struct {
	CID, Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// key names a connection; the two CIDs are always the same.
type key struct {
	guest, host uint32 // ports
}

type phase int

const (
	dialing phase = iota
	open
	// gone: the guest does not know the connection, or need not any more.
	gone
)

// Conn is a stream between host and guest. It knows deadlines, closes each
// direction alone and tells a reset (syscall.ECONNRESET) from an end (io.EOF).
// What arrived before a reset can still be read.
type Conn struct {
	device        *Device
	key           key
	local, remote Addr

	// answered is closed when the guest has accepted or refused.
	answered chan struct{}

	mu                 sync.Mutex
	readable, writable sync.Cond
	reading, writing   deadline
	phase              phase
	err                error // why it is gone, nil when it ended well
	in, out            buffer
	send               sendCredit
	receive            receiveCredit
	closed             bool // by Close
	writers            int  // in Write, waiting for room

	// What the guest has to be told, in the order of emit.
	resetDue, requestDue, responseDue bool
	shut, shutTold, guestShut         uint32
	updateDue, askDue                 bool
	requested                         bool // the guest may know of it
	accepted                          bool // the guest knows of it

	asking asking
	linger linger

	// Its place in the device's queue, guarded by the queue's lock.
	queued         bool
	before, behind *Conn
}

var _ net.Conn = (*Conn)(nil)

func newConn(d *Device, k key) *Conn {
	c := &Conn{
		device:   d,
		key:      k,
		local:    Addr{CID: hostCID, Port: k.host},
		remote:   Addr{CID: d.cid, Port: k.guest},
		answered: make(chan struct{}),
		in:       buffer{chunks: d.chunks},
		out:      buffer{chunks: d.chunks},
	}
	c.readable.L, c.writable.L = &c.mu, &c.mu
	return c
}

// LocalAddr is the host's end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the guest's end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read returns io.EOF when the guest has ended its direction.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.failed("read", net.ErrClosed)
		case c.reading.passed:
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case c.in.size > 0:
			n := c.in.read(p)
			c.receive.forwarded += uint32(n)
			c.tell()
			return n, nil
		case c.err != nil:
			return 0, c.failed("read", c.err)
		case c.guestShut&shutSend != 0 || c.phase == gone:
			return 0, io.EOF
		}
		c.readable.Wait()
	}
}

// Write returns when all of p is on its way or waits for the guest to make room.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for {
		switch {
		case c.closed:
			return total, c.failed("write", net.ErrClosed)
		case c.writing.passed:
			return total, c.failed("write", os.ErrDeadlineExceeded)
		case c.err != nil:
			return total, c.failed("write", c.err)
		case c.shut&shutSend != 0 || c.guestShut&shutReceive != 0 || c.phase == gone:
			return total, c.failed("write", syscall.EPIPE)
		case len(p) == 0:
			return total, nil
		}
		if room := sendBytes - c.out.size; room > 0 {
			n := min(room, len(p))
			c.out.write(p[:n])
			p, total = p[n:], total+n
			c.device.queue.add(c)
			continue
		}
		c.writers++
		c.writable.Wait()
		c.writers--
	}
}

// CloseWrite ends the direction to the guest after all that was written.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.failed("close", net.ErrClosed)
	case c.err != nil:
		return c.failed("close", c.err)
	case c.phase == gone:
		return nil
	}
	c.shut |= shutSend
	c.writable.Broadcast()
	c.device.queue.add(c)
	return nil
}

// Close ends both directions. It does not wait: the guest still gets what was
// written, as long as it takes some of it every two minutes. What the guest
// sends from now on is discarded.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.close()
	if c.phase == gone {
		return nil
	}
	c.shut = shutBoth
	c.device.queue.add(c)
	c.startLinger()
	return nil
}

// Abort closes the connection at once and tells the guest that it was reset.
func (c *Conn) Abort() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.close()
	c.reset(net.ErrClosed)
	return nil
}

// close is what Close and Abort have in common. The data that nobody will read
// counts as read, so that the guest is not left waiting for credit.
func (c *Conn) close() {
	c.closed = true
	c.reading.set(c, &c.readable, time.Time{})
	c.writing.set(c, &c.writable, time.Time{})
	c.receive.forwarded += uint32(c.in.size)
	c.in.clear()
	c.wake()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, true, true)
}

// SetReadDeadline sets the time after which Read fails.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(t, true, false)
}

// SetWriteDeadline sets the time after which Write fails.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(t, false, true)
}

func (c *Conn) setDeadlines(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("set", net.ErrClosed)
	}
	if read {
		c.reading.set(c, &c.readable, t)
	}
	if write {
		c.writing.set(c, &c.writable, t)
	}
	return nil
}

func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Source: c.local, Addr: c.remote, Err: err}
}

// wake lets everybody who waits look again.
func (c *Conn) wake() {
	c.readable.Broadcast()
	c.writable.Broadcast()
}
