package vhostvsock

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limit is for whatever a test waits for; it is long since machines are busy.
const limit = 30 * time.Second

const testCID = 7

// newDevice makes a device on a socket of its own.
func newDevice(t testing.TB) (*Device, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(l, Config{CID: testCID})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

// Layout of the guest's memory: two regions of one file, neither at its
// beginning, both at addresses that have nothing to do with each other.
const (
	hole       = 64 << 10
	regionSize = 4 << 20
	guestLow   = 0x10_0000
	guestHigh  = 0x1_0000_0000
	userLow    = 0x7f00_0000_0000
	userHigh   = 0x7f80_0000_0000

	ringSize    = 128
	ringBytes   = 16 << 10 // of memory for one ring
	bufferBytes = 8 << 10  // of memory for one descriptor
)

// frontend is QEMU's side of the socket, and the guest's memory.
type frontend struct {
	t      testing.TB
	conn   *net.UnixConn
	fd     int
	memory []byte // the file
	rings  [2]*vring
}

func newFrontend(t testing.TB, path string) *frontend {
	t.Helper()
	f := &frontend{t: t}
	var err error
	if f.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	size := hole + 2*regionSize
	if f.fd, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(f.fd, int64(size)); err != nil {
		t.Fatal(err)
	}
	if f.memory, err = unix.Mmap(f.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	for i := range f.rings {
		f.rings[i] = newVring(f, i)
	}
	t.Cleanup(func() {
		f.conn.Close()
		for _, r := range f.rings {
			r.close()
		}
		unix.Munmap(f.memory)
		unix.Close(f.fd)
	})
	return f
}

// send sends a message.
func (f *frontend) send(r request, flags uint32, body []byte, fds ...int) {
	f.t.Helper()
	b := binary.LittleEndian.AppendUint32(nil, uint32(r))
	b = binary.LittleEndian.AppendUint32(b, protocolVersion|flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := f.conn.WriteMsgUnix(append(b, body...), oob, nil); err != nil {
		f.t.Fatalf("send message %d: %v", r, err)
	}
}

// reply reads the answer to a message.
func (f *frontend) reply(r request) []byte {
	f.t.Helper()
	f.conn.SetReadDeadline(time.Now().Add(limit))
	head := make([]byte, messageHeaderBytes)
	if _, err := io.ReadFull(f.conn, head); err != nil {
		f.t.Fatalf("the reply to message %d: %v", r, err)
	}
	if got := request(binary.LittleEndian.Uint32(head)); got != r {
		f.t.Fatalf("message %d was answered by %d", r, got)
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(f.conn, body); err != nil {
		f.t.Fatal(err)
	}
	return body
}

// do sends a message and reports whether the device says that it did it.
func (f *frontend) do(r request, body []byte, fds ...int) bool {
	f.t.Helper()
	f.send(r, flagNeedReply, body, fds...)
	return binary.LittleEndian.Uint64(f.reply(r)) == 0
}

func (f *frontend) must(r request, body []byte, fds ...int) {
	f.t.Helper()
	if !f.do(r, body, fds...) {
		f.t.Fatalf("the device refuses message %d", r)
	}
}

func words(w ...uint64) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func pair(index int, number uint32) []byte { return words(uint64(index) | uint64(number)<<32) }

// negotiate is what QEMU says before the guest's driver is there.
func (f *frontend) negotiate() {
	f.t.Helper()
	f.send(getFeatures, 0, nil)
	f.reply(getFeatures)
	f.send(getProtocolFeatures, 0, nil)
	f.reply(getProtocolFeatures)
	f.send(setProtocolFeatures, 0, words(protocolFeatures))
	f.must(setOwner, nil)
}

func (f *frontend) setMemory() {
	f.t.Helper()
	f.must(setMemTable, words(2,
		guestLow, regionSize, userLow, hole,
		guestHigh, regionSize, userHigh, hole+regionSize), f.fd, f.fd)
}

// startRings is what QEMU says when the driver is ready.
func (f *frontend) startRings(features uint64) {
	f.t.Helper()
	f.must(setFeatures, words(features))
	f.setMemory()
	for i := range f.rings {
		f.startRing(i)
	}
	for i := range f.rings {
		f.must(setVringEnable, pair(i, 1))
	}
}

func (f *frontend) startRing(i int) {
	f.t.Helper()
	r := f.rings[i]
	f.must(setVringNum, pair(i, ringSize))
	f.must(setVringBase, pair(i, uint32(r.base)))
	f.must(setVringAddr, words(uint64(i), r.user(0), r.user(usedOffset), r.user(availOffset), 0))
	f.must(setVringCall, pair(i, 0), r.callFD)
	f.must(setVringKick, pair(i, 0), r.kickFD)
}

// stopRing gives the place where the ring stopped.
func (f *frontend) stopRing(i int) {
	f.t.Helper()
	f.send(getVringBase, 0, pair(i, 0))
	f.rings[i].base = uint16(binary.LittleEndian.Uint64(f.reply(getVringBase)) >> 32)
}

const (
	availOffset = ringSize * descriptorBytes
	usedOffset  = availOffset + 4<<10
)

// vring is the driver's side of a ring, with a buffer for each descriptor.
type vring struct {
	index  int
	base   uint16 // for SET_VRING_BASE
	memory []byte
	low    []byte // where the ring is
	events bool
	// The ends of kick and call: the driver's and, by FD, the device's. Of an
	// eventfd they are the same.
	kick, kickFD int
	call         *os.File
	callFD       int

	mu        sync.Mutex
	room      sync.Cond
	free      []uint16
	next      uint16 // of the available ring
	seen      uint16 // of the used ring
	closed    bool
	fence     uint32
	interrupt atomic.Int64 // interrupts so far
	kicked    atomic.Int64
}

func newVring(f *frontend, i int) *vring {
	r := &vring{index: i, memory: f.memory, low: f.memory[hole+i*ringBytes:][:ringBytes]}
	r.room.L = &r.mu
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		f.t.Fatal(err)
	}
	r.callFD, r.call = fd, os.NewFile(uintptr(fd), "call")
	if r.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		f.t.Fatal(err)
	}
	r.kickFD = r.kick
	r.reset()
	return r
}

// usePipes takes pipes instead of eventfds, as QEMU does where there are none.
func (r *vring) usePipes(t testing.TB) {
	t.Helper()
	r.close()
	var kick, call [2]int
	for _, p := range []*[2]int{&kick, &call} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
	}
	r.kickFD, r.kick = kick[0], kick[1]
	r.call, r.callFD = os.NewFile(uintptr(call[0]), "call"), call[1]
}

func (r *vring) close() {
	if r.kickFD != r.kick {
		unix.Close(r.kickFD)
		unix.Close(r.callFD)
	}
	r.call.Close()
	unix.Close(r.kick)
}

// reset is what a driver that begins anew makes of the ring.
func (r *vring) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.low)
	r.base, r.next, r.seen, r.free, r.closed = 0, 0, 0, nil, false
	for n := range uint16(ringSize) {
		r.free = append(r.free, n)
	}
}

func (r *vring) user(offset int) uint64 { return userLow + uint64(r.index*ringBytes+offset) }

// buffer is the memory of a descriptor: those of the second ring are in the
// second region.
func (r *vring) buffer(n uint16) []byte {
	at := hole + 2*ringBytes + int(n)*bufferBytes
	return r.memory[at+r.index*regionSize:][:bufferBytes]
}

func (r *vring) guest(n uint16) uint64 {
	at := uint64(2*ringBytes + int(n)*bufferBytes)
	if r.index == 1 {
		return guestHigh + at
	}
	return guestLow + at
}

func (r *vring) avail() *uint32 { return (*uint32)(unsafe.Pointer(&r.low[availOffset])) }

func (r *vring) used() *uint32 { return (*uint32)(unsafe.Pointer(&r.low[usedOffset])) }

// describe writes a descriptor.
func (r *vring) describe(n uint16, address uint64, length uint32, flags, next uint16) {
	b := r.low[int(n)*descriptorBytes:]
	binary.LittleEndian.PutUint64(b, address)
	binary.LittleEndian.PutUint32(b[8:], length)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// offer makes a chain available. The caller holds mu.
func (r *vring) offer(head uint16) {
	binary.LittleEndian.PutUint16(r.low[availOffset+4+2*int(r.next%ringSize):], head)
	r.next++
	flags := atomic.LoadUint32(r.avail()) & 0xffff
	atomic.StoreUint32(r.avail(), flags|uint32(r.next)<<16)
	atomic.AddUint32(&r.fence, 1)
	wanted := atomic.LoadUint32(r.used())&noNotify == 0
	if r.events {
		wanted = r.next-1 == binary.LittleEndian.Uint16(r.low[usedOffset+4+8*ringSize:])
	}
	if wanted {
		r.kicked.Add(1)
		unix.Write(r.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// put makes one chain of the sizes, filled with data for the device to read, or
// for it to write when data is nil. It waits for free descriptors.
func (r *vring) put(sizes []int, data []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.free) < len(sizes) && !r.closed {
		r.room.Wait()
	}
	if r.closed {
		return false
	}
	chain := r.free[len(r.free)-len(sizes):]
	for i, size := range sizes {
		var flags, next uint16
		if i+1 < len(sizes) {
			flags, next = descriptorNext, chain[i+1]
		}
		if data == nil {
			flags |= descriptorWrite
		} else {
			data = data[copy(r.buffer(chain[i])[:size], data):]
		}
		r.describe(chain[i], r.guest(chain[i]), uint32(size), flags, next)
	}
	head := chain[0]
	r.free = r.free[:len(r.free)-len(sizes)]
	r.offer(head)
	return true
}

// take gives what the device returned: the bytes that it wrote.
func (r *vring) take() ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if uint16(atomic.LoadUint32(r.used())>>16) == r.seen {
		return nil, false
	}
	entry := r.low[usedOffset+4+8*int(r.seen%ringSize):]
	n := uint16(binary.LittleEndian.Uint32(entry))
	left := int(binary.LittleEndian.Uint32(entry[4:]))
	r.seen++
	var got []byte
	for {
		b := r.low[int(n)*descriptorBytes:]
		size := min(left, int(binary.LittleEndian.Uint32(b[8:])))
		got = append(got, r.buffer(n)[:size]...)
		left -= size
		r.free = append(r.free, n)
		if binary.LittleEndian.Uint16(b[12:])&descriptorNext == 0 {
			break
		}
		n = binary.LittleEndian.Uint16(b[14:])
	}
	r.room.Broadcast()
	return got, true
}

// sleep asks for an interrupt and reports whether there is reason to wait for
// one.
func (r *vring) sleep() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	binary.LittleEndian.PutUint16(r.low[availOffset+4+2*ringSize:], r.seen)
	atomic.AddUint32(&r.fence, 1)
	return uint16(atomic.LoadUint32(r.used())>>16) == r.seen
}

// serve calls handle with everything that the device returns, until the ring or
// its descriptor is closed.
func (r *vring) serve(handle func([]byte)) {
	b := make([]byte, 8)
	for {
		for {
			got, ok := r.take()
			if ok {
				handle(got)
				continue
			}
			if r.sleep() {
				break
			}
		}
		if _, err := r.call.Read(b); err != nil {
			return
		}
		r.interrupt.Add(1)
	}
}

// stop wakes who waits for free descriptors.
func (r *vring) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.room.Broadcast()
}
