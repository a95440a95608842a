package vhostvsock

import (
	"net"
	"sync"
	"syscall"
)

// backlog is how many connections wait for Accept before the guest is refused.
const backlog = 128

// Listener takes connections that the guest opens to CID 2.
type Listener struct {
	device *Device
	port   uint32
	conns  chan *Conn
	done   chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen takes the connections that the guest opens to a port of CID 2. It can
// be called before there is a guest, and outlives guests.
func (d *Device) Listen(port uint32) (*Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	switch {
	case d.closed:
		err = net.ErrClosed
	case d.listeners[port] != nil:
		err = syscall.EADDRINUSE
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "vsock", Addr: Addr{CID: hostCID, Port: port}, Err: err}
	}
	l := &Listener{device: d, port: port, conns: make(chan *Conn, backlog), done: make(chan struct{})}
	d.listeners[port] = l
	return l, nil
}

// Accept returns a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close ends the listener and resets what it has not accepted.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.device.mu.Lock()
		delete(l.device.listeners, l.port)
		l.device.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.Abort()
			default:
				return
			}
		}
	})
	return nil
}

// Addr is CID 2 and the port.
func (l *Listener) Addr() net.Addr { return Addr{CID: hostCID, Port: l.port} }

// accept makes a connection that the guest has asked for, and reports whether
// anybody takes it.
func (d *Device) accept(k key, h *header) bool {
	c := newConn(d, k)
	c.phase, c.requested, c.accepted, c.responseDue = open, true, true, true
	close(c.answered)
	c.send.update(h.allocated, h.forwarded)
	if !d.offer(c) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.queue.add(c)
	return true
}

// offer puts a connection into the table and to its listener at once, so that
// whoever closes either finds it.
func (d *Device) offer(c *Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.listeners[c.key.host]
	if l == nil || len(d.conns) >= maxConns {
		return false
	}
	select {
	case l.conns <- c:
		d.conns[c.key] = c
		return true
	default:
		return false
	}
}
