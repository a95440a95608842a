package vm_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestVsockDevice boots Debian's kernel with our device and no other way out.
func TestVsockDevice(t *testing.T) {
	b := newBed(t)
	t.Run("connect", b.connect)
	t.Run("refused", b.refused)
	t.Run("half-close", b.halfClose)
	t.Run("to the guest", b.toGuest)
	t.Run("from the guest", b.fromGuest)
	t.Run("small writes", b.smallWrites)
	t.Run("500 connections", b.many)
	t.Run("the guest dials", b.guestDials)
	t.Run("pause", b.pause)
	t.Run("reboot", b.reboot)
	t.Run("hard reset", b.hardReset)
	t.Run("another machine", b.another)
}

func (b *bed) connect(t *testing.T) {
	c := b.dial(t, portEcho)
	say(t, c, []byte("hello"))
}

func say(t *testing.T, c *vhostvsock.Conn, what []byte) {
	t.Helper()
	if _, err := c.Write(what); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, what) {
		t.Fatal("other bytes came back")
	}
}

func (b *bed) refused(t *testing.T) {
	start := time.Now()
	_, err := b.device.Dial(t.Context(), portNobody)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a port that nobody listens on: %v", err)
	}
	// The guest's own limit for a connection without an answer is 2 s.
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// halfClose ends one direction while the other goes on: the echo server sends
// everything back after it has seen the end.
func (b *bed) halfClose(t *testing.T) {
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		c := b.dial(t, portEcho)
		data := pattern(0, size)
		go func() {
			c.Write(data)
			c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes came back: %v", len(got), size, err)
		}
	}
}

// pattern is what the guest produces, from a place on.
func pattern(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((at + i) * 2654435761 >> 8)
	}
	return b
}

const bulk = 100_000_000

func (b *bed) toGuest(t *testing.T) {
	c := b.dial(t, portOrders)
	start := time.Now()
	fmt.Fprintln(c, "swallow")
	sum := sha256.New()
	block := pattern(0, 100_000)
	for range bulk / len(block) {
		sum.Write(block)
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	want := fmt.Sprintf("%d %s\n", bulk, hex.EncodeToString(sum.Sum(nil)))
	if err != nil || string(answer) != want {
		t.Fatalf("the guest got %q (%v), want %q", answer, err, want)
	}
	t.Logf("%.0f MB/s", bulk/1e6/time.Since(start).Seconds())
}

func (b *bed) fromGuest(t *testing.T) {
	c := b.dial(t, portOrders)
	start := time.Now()
	fmt.Fprintf(c, "produce %d\n", bulk)
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, c)
	if err != nil || n != bulk {
		t.Fatalf("%d bytes came: %v", n, err)
	}
	t.Logf("%.0f MB/s", bulk/1e6/time.Since(start).Seconds())
	for at := 0; at < bulk; at += 1 << 20 {
		want.Write(pattern(at, min(1<<20, bulk-at)))
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Fatal("other bytes came")
	}
}

// smallWrites sends more bytes one by one than a kernel has room for if each of
// them were a packet.
func (b *bed) smallWrites(t *testing.T) {
	c := b.dial(t, portEcho)
	data := pattern(7, 20_000)
	go func() {
		for i := range data {
			c.Write(data[i : i+1])
		}
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back: %v", len(got), len(data), err)
	}
}

// many holds 500 connections at once, beside one that the guest never reads.
func (b *bed) many(t *testing.T) {
	stalled := b.dial(t, portOrders)
	fmt.Fprintln(stalled, "stall")
	if _, err := bufio.NewReader(stalled).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stalled.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := stalled.Write(make([]byte, 4<<20)); err == nil {
		t.Fatal("the guest took what it does not read")
	}
	var group sync.WaitGroup
	var held sync.WaitGroup
	held.Add(500)
	for i := range 500 {
		group.Go(func() {
			err := func() error {
				defer held.Done()
				c, err := b.device.Dial(t.Context(), portEcho)
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(limit))
				data := pattern(i, 3000)
				if _, err := c.Write(data); err != nil {
					return err
				}
				got := make([]byte, len(data))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
					return fmt.Errorf("other bytes came back, %v", err)
				}
				return nil
			}()
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			held.Wait()
		})
	}
	group.Wait()
}

func (b *bed) guestDials(t *testing.T) {
	l, err := b.device.Listen(5000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	order := b.dial(t, portOrders)
	fmt.Fprintln(order, "dial 5000")
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	say(t, c.(*vhostvsock.Conn), []byte("from the host"))
	if said, err := bufio.NewReader(order).ReadString('\n'); said != "dialled <nil>\n" {
		t.Errorf("the guest says %q, %v", said, err)
	}

	order = b.dial(t, portOrders)
	fmt.Fprintln(order, "dial 5001")
	said, err := io.ReadAll(order)
	if !bytes.Contains(said, []byte("connection reset")) {
		t.Errorf("the guest says %q to a refusal, %v", said, err)
	}
}

// pause: a connection of a machine that stops and goes on is the same one.
func (b *bed) pause(t *testing.T) {
	c := b.dial(t, portEcho)
	say(t, c, []byte("before"))
	b.machine.Monitor("stop")
	if _, err := c.Write([]byte("meanwhile")); err != nil {
		t.Fatal(err)
	}
	b.machine.Monitor("cont")
	got := make([]byte, len("meanwhile"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "meanwhile" {
		t.Fatalf("%q came back, %v", got, err)
	}
	say(t, c, []byte("after"))
	b.connect(t)
}

// hardReset: the guest has no time to close anything.
func (b *bed) hardReset(t *testing.T) {
	c := b.dial(t, portEcho)
	say(t, c, []byte("before"))
	b.machine.Monitor("system_reset")
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the reset %d bytes, %v", n, err)
	}
	b.machine.WaitFor("GUEST-READY", 3)
	b.waitForGuest(t)
	b.connect(t)
}

// reboot resets what was open, and the guest comes back on the same rings.
func (b *bed) reboot(t *testing.T) {
	c := b.dial(t, portEcho)
	say(t, c, []byte("before"))
	fmt.Fprintln(b.dial(t, portOrders), "reboot")
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
		t.Errorf("after the reboot %d bytes, %v", n, err)
	}
	b.machine.WaitFor("GUEST-READY", 2)
	b.waitForGuest(t)
	b.connect(t)
}

// another kills QEMU, and starts a second one at the same socket.
func (b *bed) another(t *testing.T) {
	c := b.dial(t, portEcho)
	say(t, c, []byte("before"))
	b.machine.Kill()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the end of QEMU %d bytes, %v", n, err)
	}
	wait.Until(t, limit, "the device to notice", func() bool {
		_, err := b.device.Dial(t.Context(), portEcho)
		return errors.Is(err, vhostvsock.ErrNoGuest)
	})
	b.boot(t)
	b.waitForGuest(t)
	b.connect(t)
}
