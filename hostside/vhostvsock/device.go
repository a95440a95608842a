package vhostvsock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrUnsupported is what New returns where there is no such device.
	ErrUnsupported = errors.New("a vhost-user vsock device is not supported on this system")
	// ErrNoGuest is what Dial returns while no guest's driver runs the device.
	ErrNoGuest = errors.New("no guest uses the device")
)

// maxConns bounds the connections, and with them what a guest costs that opens
// them or takes requests but never their resets.
const maxConns = 16 << 10

// firstPort is where the ports of Dial begin, with a random distance.
const firstPort = 1 << 30

// Config says what the device is.
type Config struct {
	// CID is the guest's address, from 3 up.
	CID uint32
	// Log, if not nil, hears of guests that come and go and of what they do
	// wrong. It must not block for long and must not call the Device.
	Log func(format string, args ...any)
}

// Device is a vhost-user-vsock device.
type Device struct {
	cid         uint32
	log         func(format string, args ...any)
	listener    *net.UnixListener
	chunks      *sync.Pool
	queue       *queue
	lingerLimit time.Duration // lingerLimit, except in tests
	served      sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	live      bool // a guest's driver runs both rings
	session   *session
	conns     map[key]*Conn
	listeners map[uint32]*Listener
	nextPort  uint32
}

// Supported reports whether New works on this system.
func Supported() bool { return supported }

// New serves the device to one QEMU after the other that connects to the
// listener, which the Device closes in the end.
func New(l *net.UnixListener, config Config) (*Device, error) {
	if !supported {
		return nil, ErrUnsupported
	}
	if config.CID <= hostCID || config.CID == ^uint32(0) {
		return nil, fmt.Errorf("a guest cannot have CID %d", config.CID)
	}
	d := &Device{
		cid:         config.CID,
		log:         config.Log,
		listener:    l,
		chunks:      newChunks(),
		queue:       newQueue(),
		lingerLimit: lingerLimit,
		conns:       make(map[key]*Conn),
		listeners:   make(map[uint32]*Listener),
		nextPort:    firstPort + rand.Uint32N(firstPort),
	}
	if d.log == nil {
		d.log = func(string, ...any) {}
	}
	d.served.Go(d.serve)
	return d, nil
}

// serve takes one QEMU at a time: a second one waits until the first has gone.
func (d *Device) serve() {
	for {
		conn, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log("accept: %v", err)
			// Out of descriptors, most likely: there may be some in a while.
			if !d.pause(100 * time.Millisecond) {
				return
			}
			continue
		}
		s := newSession(d, conn)
		if !d.attach(s) {
			conn.Close()
			return
		}
		d.log("a virtual machine has connected")
		err = s.run()
		d.attach(nil)
		d.log("the virtual machine has gone: %v", err)
	}
}

// pause waits, and reports whether the device is still open then.
func (d *Device) pause(wait time.Duration) bool {
	time.Sleep(wait)
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed
}

func (d *Device) attach(s *session) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = s
	return !d.closed
}

// State tells whether a virtual machine is connected, and whether a driver in its
// guest runs the device, which Dial needs.
func (d *Device) State() (machine, driver bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session != nil, d.live
}

// Close disconnects the virtual machine, whose driver gets no answers from then
// on, and ends all connections and listeners.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	s := d.session
	var listeners []*Listener
	for _, l := range d.listeners {
		listeners = append(listeners, l)
	}
	d.mu.Unlock()
	err := d.listener.Close()
	if s != nil {
		s.end(net.ErrClosed)
	}
	d.served.Wait()
	for _, l := range listeners {
		l.Close()
	}
	d.drop(net.ErrClosed)
	return err
}

// Dial connects to a port of the guest. It fails with syscall.ECONNREFUSED as
// soon as the guest says that nobody listens there, and with ErrNoGuest when
// there is no guest. A guest that does not answer is waited for until ctx ends.
func (d *Device) Dial(ctx context.Context, port uint32) (*Conn, error) {
	c, err := d.dial(ctx, port)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "vsock", Addr: Addr{CID: d.cid, Port: port}, Err: err}
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context, port uint32) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := d.add(port)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.requestDue = true
	d.queue.add(c)
	c.mu.Unlock()
	select {
	case <-c.answered:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == dialing {
		c.closed = true
		c.reset(ctx.Err())
	}
	if !c.accepted {
		return nil, c.err
	}
	// It may be gone again, with something to read.
	return c, nil
}

// add makes a connection with a port of its own.
func (d *Device) add(port uint32) (*Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if !d.live {
		return nil, ErrNoGuest
	}
	if len(d.conns) >= maxConns {
		return nil, syscall.EADDRNOTAVAIL
	}
	for { // there are far more ports
		k := key{guest: port, host: d.nextPort}
		if d.nextPort++; d.nextPort >= ^uint32(0)-1 {
			d.nextPort = firstPort
		}
		if d.conns[k] == nil {
			c := newConn(d, k)
			d.conns[k] = c
			return c, nil
		}
	}
}

func (d *Device) find(k key) *Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[k]
}

func (d *Device) remove(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns[c.key] == c {
		delete(d.conns, c.key)
	}
}

// setLive says whether a guest's driver runs.
func (d *Device) setLive(live bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = live
}

// drop ends all connections: the guest that had them is no more.
func (d *Device) drop(why error) {
	d.mu.Lock()
	conns := d.conns
	d.conns = make(map[key]*Conn)
	d.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.leave(why)
		c.mu.Unlock()
	}
	d.queue.clearResets()
}
