package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// A split virtqueue (virtio 1.2, section 2.7), the device's side.
const (
	descriptorBytes = 16
	descriptorNext  = 1
	descriptorWrite = 2
	descriptorTable = 4 // never offered

	noInterrupt = 1 // in the flags of the available ring
	noNotify    = 1 // in the flags of the used ring

	// maxRingSize is QEMU's limit too; for vsock it makes rings of 128.
	maxRingSize = 1024
)

var errNoMemory = errors.New("not in the guest's memory")

// ring is one virtqueue. Everything of it is guarded by mu, which is held while
// guest memory is touched on the ring's behalf: whoever changes the memory or
// stops the ring holds it, too.
type ring struct {
	mu     sync.Mutex
	toHost bool // the guest writes, we read

	// What the front end said.
	size                     uint16
	descriptorsAt, availAt   uint64
	usedAt                   uint64
	next                     uint16 // of the available ring
	started, enabled, events bool
	live                     bool // both rings are ready
	call, broken             *notifier
	fault                    error // why it is not used any more

	// Where it is in our memory; nil until resolve.
	memory                  *memory
	descriptors, avail, use []byte
	usedNext                uint16 // the next entry of the used ring to fill
	usedTold                uint16 // what the guest can see of it
	usedCalled              uint16 // what it was told of by an interrupt
	calledOnce              bool
	parts                   [][]byte
	fence                   uint32
}

// resolve finds the ring in memory. It must be called again whenever the memory
// is another.
func (r *ring) resolve(m *memory) error {
	r.memory, r.descriptors, r.avail, r.use = nil, nil, nil, nil
	n := uint64(r.size)
	if n == 0 {
		return errors.New("the ring has no size")
	}
	// Linux, the BSDs, Windows and firmware all align to 16 and more. Four is
	// what reading flags and index as one word needs.
	if r.descriptorsAt%16 != 0 || r.availAt%4 != 0 || r.usedAt%4 != 0 {
		return errors.New("the ring is not aligned")
	}
	descriptors, ok1 := m.user(r.descriptorsAt, n*descriptorBytes)
	avail, ok2 := m.user(r.availAt, 4+2*n+2)
	use, ok3 := m.user(r.usedAt, 4+8*n+2)
	if !ok1 || !ok2 || !ok3 {
		return fmt.Errorf("the ring is %w", errNoMemory)
	}
	if uintptr(unsafe.Pointer(&avail[0]))%4 != 0 || uintptr(unsafe.Pointer(&use[0]))%4 != 0 {
		return errors.New("the ring is not aligned in memory")
	}
	r.memory, r.descriptors, r.avail, r.use = m, descriptors, avail, use
	return nil
}

// begin reads what the guest's memory knows about an earlier use of the ring.
func (r *ring) begin() {
	r.usedNext = uint16(atomic.LoadUint32(word(r.use)) >> 16)
	r.usedTold, r.usedCalled, r.calledOnce = r.usedNext, r.usedNext, false
	r.setNotify(false)
}

// ready reports whether the ring could be used.
func (r *ring) ready() bool {
	return r.started && r.enabled && r.fault == nil && r.memory != nil
}

// usable reports whether the ring may be used now.
func (r *ring) usable() bool { return r.live && r.ready() }

// peek gives the next chain without taking it.
func (r *ring) peek(c *chain) (bool, error) {
	waiting := r.available() - r.next
	if waiting == 0 {
		return false, nil
	}
	if waiting > r.size {
		return false, fmt.Errorf("%d chains are available in a ring of %d", waiting, r.size)
	}
	at := 4 + 2*int(r.next&(r.size-1))
	head := binary.LittleEndian.Uint16(r.avail[at:])
	c.head, c.left = head, 0
	parts := r.parts[:0]
	index := head
	for n := uint16(0); ; n++ {
		if n == r.size {
			return false, errors.New("a chain is longer than the ring")
		}
		if index >= r.size {
			return false, fmt.Errorf("descriptor %d in a ring of %d", index, r.size)
		}
		var d [descriptorBytes]byte
		copy(d[:], r.descriptors[int(index)*descriptorBytes:])
		address := binary.LittleEndian.Uint64(d[0:])
		length := binary.LittleEndian.Uint32(d[8:])
		flags := binary.LittleEndian.Uint16(d[12:])
		index = binary.LittleEndian.Uint16(d[14:])
		if flags&descriptorTable != 0 || (flags&descriptorWrite == 0) != r.toHost {
			return false, fmt.Errorf("a descriptor has flags %#x", flags)
		}
		var ok bool
		if parts, ok = r.memory.slices(parts, address, uint64(length)); !ok {
			return false, fmt.Errorf("%d bytes at %#x are %w", length, address, errNoMemory)
		}
		c.left += uint64(length)
		if flags&descriptorNext == 0 {
			break
		}
	}
	r.parts, c.parts = parts, parts
	return true, nil
}

// done takes the chain that peek gave and returns it to the guest, with written
// bytes in it. The guest learns it by publish.
func (r *ring) done(c *chain, written uint32) {
	at := 4 + 8*int(r.usedNext&(r.size-1))
	binary.LittleEndian.PutUint32(r.use[at:], uint32(c.head))
	binary.LittleEndian.PutUint32(r.use[at+4:], written)
	r.usedNext++
	r.next++
}

// publish shows the guest what done returned, and interrupts it if it wants.
func (r *ring) publish() {
	if r.usedNext == r.usedTold {
		return
	}
	r.usedTold = r.usedNext
	flags := atomic.LoadUint32(word(r.use)) & 0xffff
	atomic.StoreUint32(word(r.use), flags|uint32(r.usedNext)<<16)
	r.barrier()
	if !r.wantsCall() {
		return
	}
	r.usedCalled, r.calledOnce = r.usedNext, true
	r.call.notify()
}

func (r *ring) wantsCall() bool {
	if !r.events {
		return atomic.LoadUint32(word(r.avail))&noInterrupt == 0
	}
	if !r.calledOnce {
		return true
	}
	event := binary.LittleEndian.Uint16(r.avail[4+2*int(r.size):])
	return r.usedNext-event-1 < r.usedNext-r.usedCalled
}

// listen asks the guest to notify us of the next chain, and reports whether one
// is there already.
func (r *ring) listen() bool {
	r.setNotify(true)
	r.barrier()
	return r.available() != r.next
}

// setNotify tells the guest whether to notify us. With events an old number,
// which the guest has passed, is as good as no.
func (r *ring) setNotify(on bool) {
	if r.events {
		if on {
			binary.LittleEndian.PutUint16(r.use[4+8*int(r.size):], r.next)
		}
		return
	}
	w := uint32(r.usedTold) << 16
	if !on {
		w |= noNotify
	}
	atomic.StoreUint32(word(r.use), w)
}

func (r *ring) available() uint16 {
	return uint16(atomic.LoadUint32(word(r.avail)) >> 16)
}

// barrier keeps what is written before it from being overtaken by what is read
// after it. An atomic write or read on one side of it makes it whole on arm64,
// and every use has one.
func (r *ring) barrier() { atomic.AddUint32(&r.fence, 1) }

// fail takes the ring out of use until it is set up again.
func (r *ring) fail(err error) {
	r.fault = err
	r.broken.notify()
}

// word is the flags (low half) and the index (high half) of a ring, which are
// read and written as one, so that the index is never torn.
func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }
