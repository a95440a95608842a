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
