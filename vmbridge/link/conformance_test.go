package link_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
)

// TestConformance is what every transport has to carry.
func TestConformance(t *testing.T) {
	for _, c := range carriers() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBridge(t, c)
			pair := b.pairs(t)
			t.Run("nettest", func(t *testing.T) { testNettest(t, b) })
			t.Run("half-close", func(t *testing.T) { testHalfClose(t, pair) })
			t.Run("both ways in bulk", func(t *testing.T) { testBothWays(t, pair) })
			t.Run("reset", func(t *testing.T) { testReset(t, pair) })
			t.Run("reset after data", func(t *testing.T) { testResetAfterData(t, b) })
			t.Run("reset after half-close", func(t *testing.T) { testResetAfterHalfClose(t, pair) })
			t.Run("reset of a stalled sender", func(t *testing.T) { testResetStalled(t, b, pair, !c.hideSockets) })
			t.Run("refusal", func(t *testing.T) { testRefusal(t, b) })
			t.Run("slow reader", func(t *testing.T) { testSlowReader(t, b, pair) })
			t.Run("tiny writes", func(t *testing.T) { testTinyWrites(t, pair) })
			t.Run("checksums", func(t *testing.T) { testChecksums(t, b) })
			t.Run("datagrams", func(t *testing.T) { testDatagramSizes(t, b) })
			wait.Until(t, patience, "all flows to end", func() bool { return b.session.Flows() == 0 && b.stats.Flows.Load() == 0 })
			if b.remote != nil {
				wait.Until(t, patience, "the guest's flows to end", func() bool { return b.remote.Flows() == 0 })
				wait.Until(t, patience, "queues to be empty", func() bool {
					return b.remote.Queued() == 0 && b.session.Queued() == 0 && b.remote.Growth() == 0 && b.session.Growth() == 0
				})
			}
		})
	}
}

func testNettest(t *testing.T, b *bridge) {
	pair := b.pairs(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server := pair(t)
		_, _ = client.SetDeadline(time.Time{}), server.SetDeadline(time.Time{})
		return client, server, func() { _ = client.Close(); _ = server.Close() }, nil
	})
}

// D1: after one side has ended its direction, every byte of the other arrives.
func testHalfClose(t *testing.T, pair func(testing.TB) (client, server *net.TCPConn)) {
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		for _, clientFirst := range []bool{true, false} {
			first, second := pair(t)
			if !clientFirst {
				first, second = second, first
			}
			if _, err := first.Write([]byte("request")); err != nil {
				t.Fatal(err)
			}
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(second); string(got) != "request" || err != nil {
				t.Fatalf("request: %q, %v", got, err)
			}
			reply := noise(size)
			sent := make(chan error, 1)
			go func() {
				_, err := second.Write(reply)
				sent <- errors.Join(err, second.Close())
			}()
			got, err := io.ReadAll(first)
			if !bytes.Equal(got, reply) || err != nil {
				t.Errorf("late reply of %d bytes, client first %t: %d arrived, %v", size, clientFirst, len(got), err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			_ = first.Close()
		}
	}
}

// D2: both directions at once, with small buffers.
func testBothWays(t *testing.T, pair func(testing.TB) (client, server *net.TCPConn)) {
	client, server := pair(t)
	for _, c := range []*net.TCPConn{client, server} {
		// Less than the loopback's segment size would stall TCP itself.
		_, _ = c.SetReadBuffer(64<<10), c.SetWriteBuffer(4<<10)
	}
	payload := noise(2 << 20)
	var work sync.WaitGroup
	for _, c := range []*net.TCPConn{client, server} {
		work.Go(func() {
			if _, err := c.Write(payload); err != nil {
				t.Error(err)
			}
			_ = c.CloseWrite()
		})
		work.Go(func() {
			if got, err := io.ReadAll(c); !bytes.Equal(got, payload) || err != nil {
				t.Errorf("%d of %d bytes arrived, %v", len(got), len(payload), err)
			}
		})
	}
	work.Wait()
}

// D3: a reset travels as a reset, either way.
func testReset(t *testing.T, pair func(testing.TB) (client, server *net.TCPConn)) {
	for _, clientResets := range []bool{true, false} {
		a, b := pair(t)
		if !clientResets {
			a, b = b, a
		}
		if err := reset(a); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, connReset) {
			t.Errorf("client resets %t: the other side sees %v", clientResets, err)
		}
	}
}

// D3: what was written before a reset arrives, even when the reset comes before
// the other side is connected.
func testResetAfterData(t *testing.T, b *bridge) {
	type result struct {
		got []byte
		err error
	}
	results := make(chan result, 1)
	addr := b.forward(t, b.session, serveTCP(t, func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		results <- result{got, err}
	}))
	want := noise(1000)
	for range 20 {
		c := dialTCP(t, addr)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		_ = reset(c)
		r := wait.For(t, patience, "a reset", results)
		if !bytes.Equal(r.got, want) || !errors.Is(r.err, connReset) {
			t.Errorf("the server got %d of %d bytes and %v", len(r.got), len(want), r.err)
		}
	}
	addr = b.forward(t, b.session, serveTCP(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1)) // a dial that meets the reset would not see the data
		_, _ = c.Write(want)
		_ = reset(c)
	}))
	for range 20 {
		c := dialTCP(t, addr)
		_, _ = c.Write([]byte("x"))
		if got, err := io.ReadAll(c); !bytes.Equal(got, want) || !errors.Is(err, connReset) {
			t.Errorf("the client got %d of %d bytes and %v", len(got), len(want), err)
		}
	}
}

// D3: a half-closed connection can still be reset, by either side.
func testResetAfterHalfClose(t *testing.T, pair func(testing.TB) (client, server *net.TCPConn)) {
	for _, clientFirst := range []bool{true, false} {
		for _, sameResets := range []bool{true, false} {
			first, second := pair(t)
			if !clientFirst {
				first, second = second, first
			}
			_ = first.CloseWrite()
			if n, err := second.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("%d, %v instead of the end", n, err)
			}
			if !sameResets {
				_ = reset(second)
				if _, err := first.Read(make([]byte, 1)); !errors.Is(err, connReset) {
					t.Errorf("client first %t: the other side's reset gives %v", clientFirst, err)
				}
				continue
			}
			_ = reset(first)
			wait.Until(t, patience, "writes to fail", func() bool {
				_, err := second.Write([]byte("x"))
				if err != nil && !errors.Is(err, connReset) && !errors.Is(err, brokenPipe) {
					t.Fatal(err)
				}
				return err != nil
			})
		}
	}
}

// D3: the reset of a sender that waits for credit passes what it has sent.
func testResetStalled(t *testing.T, b *bridge, pair func(testing.TB) (client, server *net.TCPConn), noticed bool) {
	wait.Until(t, patience, "earlier flows to end", func() bool { return b.session.Flows() == 0 })
	client, server := pair(t)
	sent := writeUntilStalled(t, client)
	_ = reset(client)
	if noticed {
		// The server does not read, so no credit comes to wake the sender.
		wait.Until(t, patience, "the flow to end", func() bool { return b.session.Flows() == 0 })
	}
	got, err := io.Copy(io.Discard, server)
	if got > sent || !errors.Is(err, connReset) {
		t.Errorf("the server got %d of %d bytes and %v", got, sent, err)
	}
}

// D4: nobody listens any more.
func testRefusal(t *testing.T, b *bridge) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := b.forward(t, b.session, l.Addr().(*net.TCPAddr).AddrPort())
	_ = l.Close()
	for range 10 {
		began := time.Now()
		c, err := net.Dial("tcp", addr) // may see the reset already
		n := 0
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
			n, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if n != 0 || !errors.Is(err, connReset) || time.Since(began) > 5*time.Second {
			t.Errorf("%d bytes, %v after %s", n, err, time.Since(began))
		}
	}
}

// D5: a reader that stops holds up its own sender and nobody else.
func testSlowReader(t *testing.T, b *bridge, pair func(testing.TB) (client, server *net.TCPConn)) {
	addr := b.forward(t, b.session, serveTCP(t, echo))
	alone := echoTime(t, addr)

	type flow struct {
		client, server *net.TCPConn
		sent           int64
	}
	var stalled []flow
	for range 2 { // one on every connection of the link
		client, server := pair(t)
		_ = server.SetReadBuffer(64 << 10)
		stalled = append(stalled, flow{client, server, writeUntilStalled(t, client)})
	}
	beside := echoTime(t, addr)
	if beside > 10*alone+2*time.Second {
		t.Errorf("4 MiB there and back take %s alone, and %s beside stalled readers", alone, beside)
	}
	if b.remote != nil {
		if queued := b.remote.Queued(); queued > int64(len(stalled))*link.MaxWindow {
			t.Errorf("%d bytes are queued for %d stalled readers", queued, len(stalled))
		}
	}
	for _, f := range stalled {
		// 10 MiB and more arrive slowly, in small pieces and whole.
		done := make(chan error, 1)
		more := noise(2 << 20)
		go func() {
			_, err := f.client.Write(more)
			done <- errors.Join(err, f.client.CloseWrite())
		}()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f.server}, make([]byte, 8<<10))
		if want := f.sent + int64(len(more)); n != want || err != nil {
			t.Errorf("%d of %d bytes arrived, %v", n, want, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = f.server.Close()
	}
}

// D8: checksums agree, both ways at once.
func testChecksums(t *testing.T, b *bridge) {
	sizes := []int64{1, 10, 100}
	if raceEnabled && b.remote != nil && b.host.hide {
		sizes = sizes[:2] // without descriptors every byte is copied under the detector's eyes
	}
	for _, megabytes := range sizes {
		t.Run(fmt.Sprintf("%d MB", megabytes), func(t *testing.T) {
			size := megabytes * 1e6
			server := make(chan uint32, 2)
			addr := b.forward(t, b.session, serveTCP(t, func(c *net.TCPConn) {
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer c.CloseWrite()
					server <- pour(t, c, size)
				}()
				sum, n, err := swallow(c)
				if n != size || err != nil {
					t.Errorf("the server got %d bytes, %v", n, err)
				}
				<-done
				server <- sum
			}))
			c := dialTCP(t, addr)
			client := make(chan uint32, 1)
			go func() {
				defer c.CloseWrite()
				client <- pour(t, c, size)
			}()
			got, n, err := swallow(c)
			if n != size || err != nil {
				t.Errorf("the client got %d bytes, %v", n, err)
			}
			if want := wait.For(t, patience, "the server's sum", server); got != want {
				t.Errorf("the client got %08x instead of %08x", got, want)
			}
			if got, want := wait.For(t, patience, "the sum that the server got", server), wait.For(t, patience, "the client's sum", client); got != want {
				t.Errorf("the server got %08x instead of %08x", got, want)
			}
		})
	}
}

// Each of many tiny writes may become a frame.
func testTinyWrites(t *testing.T, pair func(testing.TB) (client, server *net.TCPConn)) {
	const writes = 100_000
	client, server := pair(t)
	_ = client.SetNoDelay(true)
	go func() {
		defer client.CloseWrite()
		for i := range writes {
			if _, err := client.Write([]byte{byte(i % 251)}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	got, err := io.ReadAll(server)
	if len(got) != writes || err != nil {
		t.Fatalf("%d of %d bytes arrived, %v", len(got), writes, err)
	}
	for i, b := range got {
		if b != byte(i%251) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}
