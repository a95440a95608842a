package vhostvsock

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
)

// batch is how many packets are moved before the guest hears of them, and before
// somebody else may have the ring.
const batch = 64

// transmit fills the ring to the guest until the session ends. It is the only
// one that does.
func (s *session) transmit() { s.work(s.device.queue.wake, s.fill) }

// receive empties the ring from the guest, likewise.
func (s *session) receive() { s.work(s.arrived, s.drain) }

// work calls step when it is woken, until step says that there is no more. A
// guest can keep it from ever being done, but not beyond the end of the session.
func (s *session) work(wake <-chan struct{}, step func() bool) {
	debug.SetPanicOnFault(true)
	defer s.recoverFault()
	for {
		select {
		case <-s.done:
			return
		case <-wake:
		}
		for step() {
			select {
			case <-s.done:
				return
			default:
			}
		}
	}
}

// fill moves a batch to the guest, and reports whether there may be more.
func (s *session) fill() bool {
	r := &s.rings[toGuest]
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.usable() {
		return false
	}
	defer r.publish()
	r.setNotify(false)
	for n := 0; n < batch; {
		if s.device.queue.empty() {
			return false
		}
		var c chain
		ok, err := r.peek(&c)
		if err == nil && ok && c.left < headerBytes {
			err = errors.New("a buffer is smaller than a header")
		}
		if err != nil {
			s.failRing(r, err)
			return false
		}
		if !ok {
			// The guest can only make room for more after it has seen these.
			r.publish()
			if r.listen() {
				r.setNotify(false)
				continue
			}
			return false
		}
		length := s.device.emit(&c)
		if length == 0 {
			return false
		}
		r.done(&c, length)
		n++
	}
	return true
}

// emit puts the packet whose turn it is into a chain.
func (d *Device) emit(to *chain) uint32 {
	if h, ok := d.queue.takeReset(); ok {
		var b [headerBytes]byte
		h.encode(&b)
		to.write(b[:])
		return headerBytes
	}
	for {
		c := d.queue.take()
		if c == nil {
			return 0
		}
		length, more := c.emit(to)
		if more {
			d.queue.add(c)
		}
		if length > 0 {
			return length
		}
	}
}

// drain takes a batch from the guest, and reports whether there may be more.
func (s *session) drain() bool {
	r := &s.rings[toHost]
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.usable() {
		return false
	}
	defer r.publish()
	r.setNotify(false)
	for range batch {
		var c chain
		ok, err := r.peek(&c)
		if err != nil {
			s.failRing(r, err)
			return false
		}
		if !ok {
			return r.listen()
		}
		s.device.deliver(&c)
		r.done(&c, 0)
	}
	return true
}

// deliver gives a packet of the guest to the connection it belongs to. Packets
// that are no packets, or have the sender wrong, are dropped.
func (d *Device) deliver(c *chain) {
	// Copied once: the guest could change what has been checked.
	var b [headerBytes]byte
	if c.read(b[:]) < headerBytes {
		return
	}
	var h header
	h.decode(&b)
	if h.sourceCID != uint64(d.cid) {
		return
	}
	if h.kind == typeStream && h.destinationCID == hostCID {
		k := key{guest: h.sourcePort, host: h.destinationPort}
		if conn := d.find(k); conn != nil {
			if conn.handle(&h, c) {
				return
			}
		} else if h.op == opRequest && d.accept(k, &h) {
			return
		}
	}
	if h.op == opReset {
		return
	}
	d.queue.refuse(header{
		sourceCID: h.destinationCID, destinationCID: h.sourceCID,
		sourcePort: h.destinationPort, destinationPort: h.sourcePort,
		kind: h.kind, op: opReset,
	})
}

// failRing ends the use of a ring in which the guest has put nonsense. The
// caller holds its lock.
func (s *session) failRing(r *ring, err error) {
	r.fail(err)
	s.device.log("the guest's ring is broken: %v", err)
	s.device.setLive(false)
	s.device.drop(syscall.ECONNRESET)
}

// recoverFault turns a memory fault into the end of the session: whoever gave us
// the memory has made its file shorter.
func (s *session) recoverFault() {
	switch p := recover().(type) {
	case nil:
	case interface {
		error
		Addr() uintptr
	}:
		s.end(fmt.Errorf("the guest's memory has gone: %w", p))
	default:
		panic(p)
	}
}
