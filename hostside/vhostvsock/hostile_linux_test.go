package vhostvsock

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestUnknown: what belongs to no connection is answered by a reset, except
// resets and what has the sender wrong.
func TestUnknown(t *testing.T) {
	_, g := newPair(t)
	got := make(chan header, 100)
	g.mu.Lock()
	g.raw = func(h *header, _ []byte) bool {
		got <- *h
		return true
	}
	g.mu.Unlock()
	for o := range op(10) {
		g.inject(header{op: o, sourcePort: 100 + uint32(o), destinationPort: 5}, nil)
	}
	g.inject(header{op: opRequest, sourceCID: testCID + 1, destinationCID: hostCID, kind: typeStream, sourcePort: 200}, nil)
	g.inject(header{op: opRequest, sourceCID: testCID, destinationCID: 99, kind: typeStream, sourcePort: 201}, nil)
	g.inject(header{op: opRequest, sourceCID: testCID, destinationCID: hostCID, kind: 2, sourcePort: 202}, nil)
	g.rings[toHost].put([]int{headerBytes - 1}, make([]byte, headerBytes-1))
	g.rings[toHost].put([]int{0}, []byte{})
	answered := make(map[uint32]header)
	for len(answered) < 11 {
		h := wait.For(t, limit, "the answers", got)
		if h.op != opReset || h.destinationCID != testCID || h.length != 0 {
			t.Errorf("the answer is %+v", h)
		}
		answered[h.destinationPort] = h
	}
	if h := answered[201]; h.sourceCID != 99 {
		t.Errorf("somebody else answers for CID 99: %+v", h)
	}
	if h := answered[202]; h.kind != 2 {
		t.Errorf("the answer is of another kind: %+v", h)
	}
	if _, ok := answered[100+uint32(opReset)]; ok {
		t.Error("a reset was answered")
	}
	if _, ok := answered[200]; ok {
		t.Error("a packet of another guest was answered")
	}
}

// TestViolations: a connection on which the guest does what it must not is reset,
// and only that one.
func TestViolations(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	bystander := dial(t, d, 1)
	for name, packet := range map[string]func(c *Conn){
		"more than the window": func(c *Conn) {
			for range windowBytes/(64<<10) + 1 {
				g.inject(header{op: opRW, sourcePort: 2, destinationPort: c.key.host}, make([]byte, 64<<10))
			}
		},
		"more than there is": func(c *Conn) {
			g.inject(header{op: opRW, sourcePort: 2, destinationPort: c.key.host, length: 1000}, make([]byte, 999))
		},
		"a huge length": func(c *Conn) {
			g.inject(header{op: opRW, sourcePort: 2, destinationPort: c.key.host, length: ^uint32(0)}, make([]byte, 999))
		},
		"another response": func(c *Conn) {
			g.inject(header{op: opResponse, sourcePort: 2, destinationPort: c.key.host}, nil)
		},
		"a request": func(c *Conn) {
			g.inject(header{op: opRequest, sourcePort: 2, destinationPort: c.key.host}, nil)
		},
		"no operation": func(c *Conn) {
			g.inject(header{op: 77, sourcePort: 2, destinationPort: c.key.host}, nil)
		},
		"data after the end": func(c *Conn) {
			g.inject(header{op: opShutdown, flags: shutSend, sourcePort: 2, destinationPort: c.key.host}, nil)
			g.inject(header{op: opRW, sourcePort: 2, destinationPort: c.key.host}, []byte{1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g.serve(2, func(s *sock) { io.ReadAll(s) })
			c := dial(t, d, 2)
			packet(c)
			wait.Until(t, limit, "a reset", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return errors.Is(c.err, syscall.ECONNRESET)
			})
			wait.Until(t, limit, "the guest to hear of it", func() bool { return g.count() == 1 })
			talk(t, bystander, pattern(1, 10_000))
		})
	}
}

// TestFloods: neither requests nor tiny packets cost the host memory, and others
// are served meanwhile.
func TestFloods(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	l, err := d.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bystander := dial(t, d, 1)
	g.mu.Lock()
	g.raw = func(h *header, _ []byte) bool { return h.destinationPort >= 100_000 }
	g.mu.Unlock()
	for i := range uint32(20_000) {
		g.inject(header{op: opRequest, sourcePort: 100_000 + i, destinationPort: 80}, nil)
		g.inject(header{op: opRequest, sourcePort: 100_000 + i, destinationPort: 81}, nil)
	}
	talk(t, bystander, pattern(1, 10_000))
	d.mu.Lock()
	n := len(d.conns)
	d.mu.Unlock()
	if n != 1+backlog {
		t.Errorf("%d connections after a flood of requests", n)
	}

	g.serve(2, func(s *sock) { io.ReadAll(s) })
	c := dial(t, d, 2)
	for range 50_000 {
		g.inject(header{op: opRW, sourcePort: 2, destinationPort: c.key.host, allocated: windowBytes}, []byte{1})
	}
	talk(t, bystander, pattern(1, 10_000))
	c.mu.Lock()
	defer c.mu.Unlock()
	chunks := 0
	for k := c.in.head; k != nil; k = k.next {
		chunks++
	}
	if c.in.size != 50_000 || chunks > 2 {
		t.Errorf("%d bytes in %d chunks", c.in.size, chunks)
	}
}

// TestUnread: a guest that takes nothing from its ring costs the host no more
// than a bounded number of answers.
func TestUnread(t *testing.T) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.startRings(allFeatures)
	f.rings[toHost].events = true
	go f.rings[toHost].serve(func([]byte) {})
	h := header{sourceCID: testCID, destinationCID: hostCID, kind: typeStream, op: opRequest}
	for i := range uint32(3 * maxResets) {
		h.sourcePort = i
		var b [headerBytes]byte
		h.encode(&b)
		f.rings[toHost].put([]int{headerBytes}, b[:])
	}
	wait.Until(t, limit, "all packets to be taken", func() bool {
		f.rings[toHost].mu.Lock()
		defer f.rings[toHost].mu.Unlock()
		return len(f.rings[toHost].free) == ringSize
	})
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	if n := len(d.queue.resets); n != maxResets {
		t.Errorf("%d answers wait", n)
	}
}

// TestBrokenRings: nonsense in a ring ends its use, and nothing else: the driver
// can begin anew.
func TestBrokenRings(t *testing.T) {
	for name, spoil := range map[string]func(r *vring){
		"index": func(r *vring) { r.next += ringSize + 1; r.offer(0) },
		"head": func(r *vring) {
			r.offer(ringSize)
		},
		"largest head": func(r *vring) { r.offer(0xffff) },
		"next": func(r *vring) {
			r.describe(0, r.guest(0), 10, descriptorNext|r.direction(), ringSize)
			r.offer(0)
		},
		"loop": func(r *vring) {
			r.describe(0, r.guest(0), 10, descriptorNext|r.direction(), 1)
			r.describe(1, r.guest(1), 10, descriptorNext|r.direction(), 0)
			r.offer(0)
		},
		"address": func(r *vring) {
			r.describe(0, guestLow+regionSize-10, 11, r.direction(), 0)
			r.offer(0)
		},
		"largest address": func(r *vring) {
			r.describe(0, ^uint64(0), 11, r.direction(), 0)
			r.offer(0)
		},
		"length": func(r *vring) {
			r.describe(0, guestLow, ^uint32(0), r.direction(), 0)
			r.offer(0)
		},
		"direction": func(r *vring) {
			r.describe(0, r.guest(0), 10, r.direction()^descriptorWrite, 0)
			r.offer(0)
		},
		"table": func(r *vring) {
			r.describe(0, r.guest(0), 16, descriptorTable, 0)
			r.offer(0)
		},
	} {
		for i, where := range []string{"to the guest", "to the host"} {
			t.Run(name+" "+where, func(t *testing.T) {
				testBrokenRing(t, i, spoil)
			})
		}
	}
}

func testBrokenRing(t *testing.T, i int, spoil func(r *vring)) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.startRings(allFeatures)
	broken, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(broken)
	f.must(setVringErr, pair(i, 0), broken)
	r := f.rings[i]
	r.mu.Lock()
	spoil(r)
	unix.Write(r.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// The device may have seen it already, or sees it when it wants to answer.
	if _, err := d.Dial(ctx, 1); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, ErrNoGuest) {
		t.Errorf("with a broken ring: %v", err)
	}
	if _, err := d.Dial(ctx, 1); !errors.Is(err, ErrNoGuest) {
		t.Errorf("with a broken ring: %v", err)
	}
	if n, err := unix.Read(broken, make([]byte, 8)); n != 8 {
		t.Errorf("the machine was not told: %v", err)
	}
	for i, r := range f.rings {
		f.stopRing(i)
		r.reset()
	}
	f.startRings(allFeatures)
	if !isLive(d) {
		t.Error("the ring cannot be used again")
	}
}

func (r *vring) direction() uint16 {
	if r.index == toGuest {
		return descriptorWrite
	}
	return 0
}

// TestMisplacedRings: a ring that is not in memory is refused when it starts.
func TestMisplacedRings(t *testing.T) {
	_, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	r := f.rings[0]
	if f.do(setVringKick, pair(0, 0), r.kick) {
		t.Error("a ring without a size, a place and memory started")
	}
	f.setMemory()
	for _, n := range []uint32{0, 3, 127, maxRingSize * 2, 1 << 31} {
		if f.do(setVringNum, pair(0, n)) {
			t.Errorf("a ring of %d", n)
		}
	}
	f.must(setVringNum, pair(0, ringSize))
	end := uint64(userLow + regionSize)
	for _, at := range [][3]uint64{
		{0, r.user(usedOffset), r.user(availOffset)},
		{r.user(0), 0, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), 0},
		{end - ringSize*descriptorBytes + 16, r.user(usedOffset), r.user(availOffset)},
		{r.user(0), end - 8*ringSize - 4, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), end - 2*ringSize - 4},
		{^uint64(15), r.user(usedOffset), r.user(availOffset)},
		{r.user(0), ^uint64(3), r.user(availOffset)},
		{r.user(8), r.user(usedOffset), r.user(availOffset)},
		{r.user(0), r.user(usedOffset) + 2, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), r.user(availOffset) + 1},
	} {
		f.must(setVringAddr, words(0, at[0], at[1], at[2], 0))
		if f.do(setVringKick, pair(0, 0), r.kick) {
			t.Errorf("a ring at %#x started", at)
		}
	}
	f.must(setVringAddr, words(0, r.user(0), r.user(usedOffset), r.user(availOffset), 0))
	f.must(setVringKick, pair(0, 0), r.kick)
	for _, m := range []request{setVringNum, setVringBase} {
		if f.do(m, pair(0, ringSize)) {
			t.Errorf("message %d changed a running ring", m)
		}
	}
	if f.do(setVringKick, pair(0, 0), f.fd) || f.do(setVringCall, pair(0, 0), f.fd) {
		t.Error("a file was taken for an eventfd")
	}
	if f.do(setVringKick, words(noDescriptor)) || f.do(setVringKick, pair(0, 0)) {
		t.Error("a ring without kicks")
	}
	f.must(setVringCall, words(noDescriptor))
	for _, m := range []request{setVringNum, setVringBase, setVringKick, setVringCall, setVringEnable, setVringAddr} {
		if f.do(m, pair(2, 0)) {
			t.Errorf("message %d for a ring that there is not", m)
		}
	}
}

// TestBadMemory: tables that cannot be.
func TestBadMemory(t *testing.T) {
	_, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	for name, table := range map[string][]uint64{
		"empty region":    {1, 0, 0, 0, 0},
		"beyond the file": {1, 0, regionSize, 0, hole + regionSize + 1},
		"offset wraps":    {1, 0, 4096, 0, ^uint64(0)},
		"guest wraps":     {1, ^uint64(0), 4096, 0, 0},
		"user wraps":      {1, 0, 4096, ^uint64(0) - 10, 0},
		"huge":            {1, 0, 1 << 63, 0, 0},
		"overlap":         {2, 0, 8192, 0, 0, 4096, 4096, 1 << 40, 8192},
		"short":           {1, 0, 4096, 0},
	} {
		fds := []int{f.fd, f.fd}[:table[0]]
		if f.do(setMemTable, words(table...), fds...) {
			t.Errorf("%s: taken", name)
		}
	}
	if f.do(setMemTable, words(2, 0, 4096, 0, 0, 4096, 4096, 4096, 0), f.fd) {
		t.Error("two regions with one descriptor")
	}
	if f.do(setMemTable, words(append([]uint64{9}, make([]uint64, 36)...)...), f.fd) {
		t.Error("nine regions")
	}
	if f.do(setFeatures, words(1<<28)) || f.do(setProtocolFeatures, words(1)) {
		t.Error("features that were not offered")
	}
	if f.do(99, nil) {
		t.Error("message 99")
	}
	f.setMemory()
}

// TestNotifications: many packets need few interrupts, and few kicks.
func TestNotifications(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	testHalfClose(t, d, 10<<20)
	for _, r := range g.rings {
		atomic.LoadUint32(r.used())
		packets, interrupts, kicks := r.packets(), r.interrupt.Load(), r.kicked.Load()
		t.Logf("ring %d: %d packets, %d interrupts, %d kicks", r.index, packets, interrupts, kicks)
		if packets < 160 || interrupts > packets || kicks > packets {
			t.Errorf("ring %d: %d packets took %d interrupts and %d kicks", r.index, packets, interrupts, kicks)
		}
	}
}

func (r *vring) packets() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(binary.LittleEndian.Uint16(r.low[usedOffset+2:]))
}

// TestGuestTakesNothing: a guest that gives no buffers costs no memory for
// connections that were given up.
func TestGuestTakesNothing(t *testing.T) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.startRings(allFeatures)
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := d.Dial(ctx, 1)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	d.mu.Lock()
	conns := len(d.conns)
	d.mu.Unlock()
	if !d.queue.empty() || conns > 0 {
		t.Errorf("%d connections are kept, and the queue is empty: %t", conns, d.queue.empty())
	}
}

// TestTooMany: a guest that takes requests and never the resets that follow, when
// they were given up, is not waited for without end.
func TestTooMany(t *testing.T) {
	d, _ := newPair(t)
	d.mu.Lock()
	for port := range uint32(maxConns) {
		k := key{guest: 1, host: port}
		d.conns[k] = newConn(d, k)
	}
	d.mu.Unlock()
	if _, err := d.Dial(t.Context(), 1); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("one too many: %v", err)
	}
}

// TestBlockingDescriptors: a front end that makes kicks and calls block, and fills
// them, holds up nothing beyond its own end.
func TestBlockingDescriptors(t *testing.T) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.startRings(allFeatures)
	full := binary.LittleEndian.AppendUint64(nil, ^uint64(0)-1)
	for _, r := range f.rings {
		wait.Until(t, limit, "a full counter", func() bool {
			unix.Read(r.callFD, make([]byte, 8))
			_, err := unix.Write(r.callFD, full)
			return err == nil
		})
		for _, fd := range []int{r.callFD, r.kickFD} {
			if err := unix.SetNonblock(fd, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := f.rings[toHost]
	r.describe(0, r.guest(0), headerBytes, 0, 0)
	r.mu.Lock()
	r.offer(0)
	r.mu.Unlock()
	unix.Write(r.kick, binary.LittleEndian.AppendUint64(nil, 1))
	wait.Until(t, limit, "the packet to be taken", func() bool { return r.packets() == 1 })
	f.conn.Close()
	settled(t, d)
}
