package vhostvsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// stopRings is what QEMU says when the driver or the machine stops.
func (g *guest) stopRings() {
	g.t.Helper()
	for i := range g.rings {
		g.must(setVringEnable, pair(i, 0))
	}
	for i := range g.rings {
		g.stopRing(i)
	}
}

func (g *guest) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.socks {
		s.gone()
	}
	g.changed.Broadcast()
}

func talk(t *testing.T, c *Conn, data []byte) {
	t.Helper()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes did not come back: %v", len(data), err)
	}
}

// TestReboot: a driver that begins anew knows no connection.
func TestReboot(t *testing.T) {
	bothFeatures(t, func(t *testing.T, features uint64) {
		d, path := newDevice(t)
		g := newGuest(t, d, path, features)
		for range 3 {
			g.serve(1, echo)
			c := dial(t, d, 1)
			talk(t, c, pattern(1, 100_000))
			g.stopRings()
			if _, err := d.Dial(t.Context(), 1); !errors.Is(err, ErrNoGuest) {
				t.Errorf("while the guest reboots: %v", err)
			}
			g.forget()
			g.boot(features)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after the reboot: %v", err)
			}
		}
	})
}

// TestPause: a machine that stops and goes on keeps its connections, and what was
// written meanwhile arrives.
func TestPause(t *testing.T) {
	bothFeatures(t, func(t *testing.T, features uint64) {
		d, path := newDevice(t)
		g := newGuest(t, d, path, features)
		g.serve(1, echo)
		c := dial(t, d, 1)
		for i := range 3 {
			talk(t, c, pattern(i, 300_000))
			g.stopRings()
			if _, err := c.Write(pattern(i, 5000)); err != nil {
				t.Fatal(err)
			}
			g.startRings(features)
			got := make([]byte, 5000)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, pattern(i, 5000)) {
				t.Fatalf("after the pause: %v", err)
			}
		}
	})
}

// TestMemoryAgain: the table of memory comes again while data flows.
func TestMemoryAgain(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	done := make(chan struct{})
	go func() {
		defer close(done)
		testHalfClose(t, d, 20<<20)
	}()
	for n := 0; ; n++ {
		select {
		case <-done:
			t.Logf("%d tables", n)
			return
		default:
			g.setMemory()
		}
	}
}

// TestMemoryGone: the rings are not in the next table, so nothing may touch them.
func TestMemoryGone(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	c := dial(t, d, 1)
	g.must(setMemTable, words(1, guestHigh, regionSize, userHigh, hole+regionSize), g.fd)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without memory: %v", err)
	}
	if _, err := d.Dial(t.Context(), 1); !errors.Is(err, ErrNoGuest) {
		t.Errorf("without memory: %v", err)
	}
	g.stopRings()
	g.forget()
	g.boot(allFeatures)
	testHalfClose(t, d, 1000)
}

// TestAnotherMachine: QEMU goes and another one comes.
func TestAnotherMachine(t *testing.T) {
	d, path := newDevice(t)
	for range 3 {
		g := newGuest(t, d, path, allFeatures)
		g.serve(1, echo)
		c := dial(t, d, 1)
		talk(t, c, pattern(1, 1000))
		g.conn.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the end: %v", err)
		}
		wait.Until(t, limit, "the end", func() bool { return !isLive(d) })
		g.stop()
	}
}

// TestShrunkMemory: whoever gave us the memory takes it away. The session ends,
// and we do not.
func TestShrunkMemory(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, echo)
	c := dial(t, d, 1)
	// The test's own view goes too, so nothing of the guest may run.
	g.stop()
	if err := unix.Ftruncate(g.fd, 0); err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("anything"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without memory: %v", err)
	}
	wait.Until(t, limit, "the end", func() bool { return !isLive(d) })
}

// TestShrunkMemoryDescriptors: what came with the message that met the fault is
// closed, too.
func TestShrunkMemoryDescriptors(t *testing.T) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.must(setFeatures, words(allFeatures))
	f.setMemory()
	for i := range f.rings {
		f.startRing(i)
	}
	f.must(setVringEnable, pair(0, 1))
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	end := os.NewFile(uintptr(pipe[0]), "pipe")
	defer end.Close()
	if err := unix.Ftruncate(f.fd, 0); err != nil {
		t.Fatal(err)
	}
	// Now both rings can be used, and are looked at.
	f.send(setVringEnable, 0, pair(1, 1), pipe[1])
	unix.Close(pipe[1])
	settled(t, d)
	end.SetReadDeadline(time.Now().Add(limit))
	if _, err := end.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the device has a descriptor still: %v", err)
	}
}

// TestDeviceClose ends everything, with a guest that goes on talking.
func TestDeviceClose(t *testing.T) {
	d, g := newPair(t)
	g.serve(1, func(s *sock) {
		for {
			if _, err := s.Write(pattern(1, 10_000)); err != nil {
				return
			}
		}
	})
	l, err := d.Listen(9)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, d, 1)
	go io.Copy(io.Discard, c)
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{1}); err == nil {
		t.Error("a write after the device's end")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the device's end: %v", err)
	}
	g.forget()
}

// TestListen: connections of the guest; the first packet of each is the
// response, which the guest checks, even when the host writes at once.
func TestListen(t *testing.T) {
	d, g := newPair(t)
	l, err := d.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Listen(80); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("twice the same port: %v", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte("welcome"))
				io.Copy(c, struct{ io.Reader }{c})
			}()
		}
	}()
	for i := range uint32(200) {
		s := g.dial(80, 10_000+i)
		if s == nil {
			t.Fatal("the guest was refused")
		}
		go func() {
			s.Write(pattern(3, 100_000))
			s.shutdown(shutSend)
		}()
		got, _ := io.ReadAll(s)
		if want := append([]byte("welcome"), pattern(3, 100_000)...); !bytes.Equal(got, want) {
			t.Fatalf("the guest got %d bytes", len(got))
		}
		s.Close()
	}
	l.Close()
	wait.For(t, limit, "the end of Accept", served)
	if g.dial(80, 9_999) != nil {
		t.Error("a closed listener took a connection")
	}
	wait.Until(t, limit, "no sockets", func() bool { return g.count() == 0 })
}

// TestConfig: the CID comes from the configuration space.
func TestConfig(t *testing.T) {
	_, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	ask := func(offset, size uint32) []byte {
		body := binary.LittleEndian.AppendUint32(nil, offset)
		body = binary.LittleEndian.AppendUint32(body, size)
		body = append(body, make([]byte, 4+min(size, 256))...)
		f.send(getConfig, 0, body)
		return f.reply(getConfig)
	}
	if got := ask(0, 8); len(got) != 20 || binary.LittleEndian.Uint64(got[12:]) != testCID {
		t.Errorf("the configuration is %x", got)
	}
	for _, c := range [][2]uint32{{0, 9}, {8, 1}, {^uint32(0), 1}, {1, ^uint32(0)}} {
		if got := ask(c[0], c[1]); len(got) != 0 {
			t.Errorf("%d bytes at %d are %x", c[1], c[0], got)
		}
	}
}

// TestSecondMachine: one QEMU at a time; the next waits for its turn.
func TestSecondMachine(t *testing.T) {
	d, path := newDevice(t)
	first := newGuest(t, d, path, allFeatures)
	first.serve(1, echo)
	second := newFrontend(t, path)
	second.send(getFeatures, 0, nil)
	talk(t, dial(t, d, 1), pattern(1, 1000))
	second.conn.SetReadDeadline(time.Now())
	if _, err := second.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the second machine was answered beside the first")
	}
	first.conn.Close()
	second.reply(getFeatures)
}

// TestPipes: QEMU on systems without eventfds kicks, and is called, through pipes.
func TestPipes(t *testing.T) {
	bothFeatures(t, func(t *testing.T, features uint64) {
		d, path := newDevice(t)
		f := newFrontend(t, path)
		for _, r := range f.rings {
			r.usePipes(t)
		}
		g := bootGuest(t, d, f, features)
		g.serve(1, echo)
		for _, n := range []int{0, 1, 3 << 20} {
			testHalfClose(t, d, n)
		}
		g.stopRings()
		g.startRings(features)
		testHalfClose(t, d, 1000)
	})
}
