package vhostvsock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
)

func bothFeatures(t *testing.T, test func(t *testing.T, features uint64)) {
	t.Run("events", func(t *testing.T) { test(t, allFeatures) })
	t.Run("plain", func(t *testing.T) { test(t, allFeatures&^featureEventIndex) })
}

func newPair(t testing.TB) (*Device, *guest) {
	t.Helper()
	d, path := newDevice(t)
	return d, newGuest(t, d, path, allFeatures)
}

func dial(t testing.TB, d *Device, port uint32) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := d.Dial(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return c
}

func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((seed + i) * 2654435761 >> 8)
	}
	return b
}

// echo sends back what it gets, and ends when the host does.
func echo(s *sock) {
	io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
	s.shutdown(shutSend)
}

// gate is opened by the test, at its end at the latest.
func gate(t testing.TB) (<-chan struct{}, func()) {
	c := make(chan struct{})
	open := sync.OnceFunc(func() { close(c) })
	t.Cleanup(open)
	return c, open
}

func TestRefused(t *testing.T) {
	d, _ := newPair(t)
	if _, err := d.Dial(t.Context(), 5); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a port that nobody listens on: %v", err)
	}
	if n := len(d.conns); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestNoGuest(t *testing.T) {
	d, _ := newDevice(t)
	if _, err := d.Dial(t.Context(), 5); !errors.Is(err, ErrNoGuest) {
		t.Fatalf("without a guest: %v", err)
	}
	d.Close()
	if _, err := d.Dial(t.Context(), 5); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// TestNoAnswer: a dial ends with its context, and the guest hears of it.
func TestNoAnswer(t *testing.T) {
	d, g := newPair(t)
	reset := make(chan struct{})
	asked := make(chan struct{})
	g.mu.Lock()
	g.raw = func(h *header, _ []byte) bool {
		switch h.op {
		case opRequest:
			close(asked)
		case opReset:
			close(reset)
		}
		return true
	}
	g.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := d.Dial(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Fatalf("without an answer: %v", err)
	}
	wait.For(t, limit, "a reset", reset)
}

// TestHalfClose: each direction ends alone, after all of its data, whatever the
// split over descriptors.
func TestHalfClose(t *testing.T) {
	bothFeatures(t, func(t *testing.T, features uint64) {
		for name, split := range map[string]func(int) []int{"linux": linuxSplit, "ragged": raggedSplit} {
			for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
				t.Run(fmt.Sprint(name, size), func(t *testing.T) {
					d, path := newDevice(t)
					g := newGuest(t, d, path, features)
					g.split = split
					g.serve(1, echo)
					testHalfClose(t, d, size)
					g.serve(2, func(s *sock) { guestFirst(s, size) })
					testGuestFirst(t, d, size)
					wait.Until(t, limit, "no sockets", func() bool { return g.count() == 0 })
				})
			}
		}
	})
}

func testHalfClose(t *testing.T, d *Device, size int) {
	c := dial(t, d, 1)
	defer c.Close()
	data := pattern(1, size)
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back: %v", len(got), size, err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after CloseWrite: %v", err)
	}
}

// guestFirst ends the guest's direction first, and then answers with what came
// afterwards: its length.
func guestFirst(s *sock, size int) {
	s.Write(pattern(2, size))
	s.shutdown(shutSend)
	got, _ := io.ReadAll(s)
	if !bytes.Equal(got, pattern(3, size)) {
		s.g.t.Errorf("the guest got %d of %d bytes", len(got), size)
	}
	s.Close()
}

func testGuestFirst(t *testing.T, d *Device, size int) {
	c := dial(t, d, 2)
	defer c.Close()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, pattern(2, size)) {
		t.Fatalf("%d of %d bytes came: %v", len(got), size, err)
	}
	if _, err := c.Write(pattern(3, size)); err != nil {
		t.Fatalf("a write after the guest's end: %v", err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The guest has read it all when it closes.
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.phase != gone {
		c.readable.Wait()
	}
}

// TestClose: what was written before Close still arrives, at a guest that begins
// to read later.
func TestClose(t *testing.T) {
	d, g := newPair(t)
	begin, start := gate(t)
	got := make(chan []byte, 1)
	g.serve(1, func(s *sock) {
		<-begin
		b, _ := io.ReadAll(s)
		got <- b
		s.Close()
	})
	c := dial(t, d, 1)
	data := pattern(4, windowBytes+sendBytes/2)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	start()
	if b := wait.For(t, limit, "the guest to read", got); !bytes.Equal(b, data) {
		t.Errorf("the guest got %d of %d bytes", len(b), len(data))
	}
	wait.Until(t, limit, "the connection to end", func() bool { return d.find(c.key) == nil })
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
}

// TestLinger: a closed connection that the guest forgets is not kept for ever.
func TestLinger(t *testing.T) {
	d, g := newPair(t)
	d.lingerLimit = 10 * time.Millisecond
	g.serve(1, func(s *sock) {})
	c := dial(t, d, 1)
	c.Write(pattern(4, windowBytes))
	c.Close()
	wait.Until(t, limit, "the connection to end", func() bool { return d.find(c.key) == nil })
	wait.Until(t, limit, "the guest to hear of it", func() bool { return g.count() == 0 })
}

func TestReset(t *testing.T) {
	d, g := newPair(t)
	reset := make(chan bool, 1)
	g.serve(1, func(s *sock) {
		io.ReadAll(s)
		g.mu.Lock()
		defer g.mu.Unlock()
		reset <- s.reset
	})
	c := dial(t, d, 1)
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	if !wait.For(t, limit, "the guest to see the end", reset) {
		t.Error("the guest saw no reset after Abort")
	}

	// What came before the guest's reset can be read.
	g.serve(2, func(s *sock) {
		s.Write([]byte("last words"))
		g.mu.Lock()
		defer g.mu.Unlock()
		g.later(s.header(opReset), nil)
		s.gone()
	})
	c = dial(t, d, 2)
	got, err := io.ReadAll(c)
	if string(got) != "last words" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("before the reset %q, then %v", got, err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a write after the reset: %v", err)
	}
	if n := g.packets[opReset].Load(); n != 1 {
		t.Errorf("the device sent %d resets", n)
	}
}

// TestStalled: a connection that one side does not read stops alone, within its
// window, and goes on later.
func TestStalled(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	begin, start := gate(t)
	sum := make(chan []byte, 1)
	g.serve(2, func(s *sock) {
		<-begin
		b, _ := io.ReadAll(s)
		sum <- b
	})
	stalled := dial(t, d, 2)
	data := pattern(5, 2<<20)
	written := make(chan error, 1)
	go func() {
		_, err := stalled.Write(data)
		stalled.CloseWrite()
		written <- err
	}()
	// The other way: the guest writes, the host does not read.
	g.serve(3, func(s *sock) { s.Write(data); s.shutdown(shutSend) })
	unread := dial(t, d, 3)
	wait.Until(t, limit, "full windows", func() bool {
		stalled.mu.Lock()
		defer stalled.mu.Unlock()
		unread.mu.Lock()
		defer unread.mu.Unlock()
		return stalled.asking.timer != nil && stalled.out.size > sendBytes/2 && unread.in.size == windowBytes
	})
	for range 3 {
		testHalfClose(t, d, 1<<20)
	}
	start()
	if b := wait.For(t, limit, "the stalled reader", sum); !bytes.Equal(b, data) {
		t.Errorf("the guest got %d of %d bytes", len(b), len(data))
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(unread); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the host got %d of %d bytes, %v", len(got), len(data), err)
	}
}

// TestThousand holds 1,000 connections at once.
func TestThousand(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	conns := make([]*Conn, 1000)
	for i := range conns {
		conns[i] = dial(t, d, 1)
	}
	var group sync.WaitGroup
	for i, c := range conns {
		group.Go(func() {
			data := pattern(i, 5000)
			go func() {
				c.Write(data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %d bytes, %v", i, len(got), err)
			}
			c.Close()
		})
	}
	group.Wait()
	wait.Until(t, limit, "no sockets", func() bool { return g.count() == 0 })
	wait.Until(t, limit, "no connections", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.conns) == 0
	})
}

// TestSmallWrites: single bytes do not overrun the guest, which counts packets
// as well (see sock.handle), and the connection does not stop for ever when the
// guest has no reason of its own to announce credit.
func TestSmallWrites(t *testing.T) {
	d, g := newPair(t)
	begin, start := gate(t)
	got := make(chan []byte, 1)
	g.serve(1, func(s *sock) {
		<-begin
		b, _ := io.ReadAll(s)
		got <- b
	})
	c := dial(t, d, 1)
	// One by one until the guest may get no more packets, though its buffer is
	// almost empty.
	var data []byte
	starved := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.asking.timer != nil
	}
	for b := byte(0); !starved(); b++ {
		c.Write([]byte{b})
		data = append(data, b)
		wait.Until(t, limit, "the byte to leave", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.out.size == 0 || c.asking.timer != nil
		})
	}
	if n := g.packets[opRW].Load(); n < 300 || n*packetOverhead > windowBytes {
		t.Errorf("it took %d packets", n)
	}
	wait.Until(t, limit, "a question for credit", func() bool { return g.packets[opCreditRequest].Load() > 0 })
	rest := pattern(6, 100_000)
	for i := range rest {
		c.Write(rest[i : i+1])
	}
	c.CloseWrite()
	start()
	if b := wait.For(t, limit, "the guest to read", got); !bytes.Equal(b, append(data, rest...)) {
		t.Errorf("the guest got %d of %d bytes", len(b), len(data)+len(rest))
	}
}

// TestSmallWindow: the guest's buffer may be smaller than ours, in which case it
// sends no more than that without hearing of credit.
func TestSmallWindow(t *testing.T) {
	for _, window := range []uint32{1500, 8 << 10, 100_000} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			d, g := newPair(t)
			g.window = window
			g.serve(1, echo)
			testHalfClose(t, d, 1<<20)
		})
	}
}
