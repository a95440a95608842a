package reach

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// listenUDP binds a socket until it is closed or the test ends.
func listenUDP(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP(network("udp", at), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	return c
}

// echoUDP serves at an address.
func echoUDP(t *testing.T, at string) (stop func()) {
	t.Helper()
	c := listenUDP(t, at)
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	stop = sync.OnceFunc(func() { c.Close(); work.Wait() })
	t.Cleanup(stop)
	return stop
}

// F1, F2, F7: UDP meets its server whichever family either uses; closed on both is
// refused, as is a server on another address only.
func TestUDPFamilies(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	b := newBed(t, nil)
	for _, c := range []struct {
		server, want string
	}{
		{"127.0.0.1:8000", "hello"}, {"[::1]:8000", "hello"}, {"0.0.0.0:8000", "hello"}, {"[::]:8000", "hello"},
		{"127.0.0.2:8000", "connection refused"},
	} {
		stop := echoUDP(t, c.server)
		for _, to := range []string{"127.0.0.1:8000", "[::1]:8000"} {
			for range 20 { // the first datagram of a flow is never lost
				if got := b.tryUDP(t, to, "hello"); got != c.want {
					t.Fatalf("server %s, client of %s: %q, want %q", c.server, to, got, c.want)
				}
			}
		}
		want := Open
		if c.want != "hello" {
			want = Refused
		}
		if p := b.port(message.UDP, 8000); p.State != want || (p.Reason == "") != (want == Open) {
			t.Errorf("server %s: listed as %s, %q", c.server, p.State, p.Reason)
		}
		stop()
	}
	if got := b.tryUDP(t, "127.0.0.2:8000", "x"); got != "denied" {
		t.Errorf("another address: %q", got)
	}
}

// E2: datagrams keep their boundaries, up to the largest, on either family and
// after a fallback.
func TestDatagramSizes(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	echoUDP(t, "127.0.0.1:8000")
	b := newBed(t, nil)
	for _, to := range []string{"127.0.0.1:8000", "[::1]:8000"} {
		for _, size := range []int{65507, 0, 1, 1472, 1473, 9000} {
			f := b.openUDP(t, to)
			for i := range 3 {
				want := strings.Repeat(string(rune('a'+i)), size)
				f.send(want)
				if got := f.outcome(t); got != want {
					t.Errorf("%s: %d bytes became %d", to, size, len(got))
				}
			}
			f.Close(wire.CodeIdle)
		}
	}
	if p := b.port(message.UDP, 8000); p.BytesIn != p.BytesOut || p.BytesIn != 2*3*(65507+1+1472+1473+9000) {
		t.Errorf("counted %d in, %d out", p.BytesIn, p.BytesOut)
	}
}

// What a flow sends in one go arrives whole and in order, although the first
// address refuses it; also from a client that is never answered.
func TestBurstBeforeFallback(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	server := listenUDP(t, "[::1]:8000")
	_ = server.SetReadDeadline(time.Now().Add(patience))
	b := newBed(t, nil)
	for round := range 20 {
		f := b.openUDP(t, "127.0.0.1:8000")
		var sent []string
		for i := range 40 {
			sent = append(sent, fmt.Sprintf("%d.%d", round, i))
		}
		f.send(sent[:20]...)
		f.send(sent[20:]...)
		buf := make([]byte, 100)
		for _, want := range sent {
			n, err := server.Read(buf)
			if got := string(buf[:n]); err != nil || got != want {
				if b.stats.DroppedDatagrams.Load() > 0 {
					t.Skip("the machine is too busy: the link has dropped a datagram")
				}
				t.Fatalf("waiting for %s: %q, %v", want, got, err)
			}
		}
		f.Close(wire.CodeIdle)
	}
	wait.Until(t, patience, "nothing is kept", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.flows) == 0 && b.guest0().kept.Load() == 0
	})
}

// guest0 is the bed's only guest.
func (b *bed) guest0() *guest { return b.guests["vm"] }

// F2: a refused flow ends as refused; when a server appears, the next flow reaches
// it; when the server goes, the flow ends, and so on.
func TestServerComesAndGoes(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	b := newBed(t, nil)
	for range 10 {
		if got := b.tryUDP(t, "127.0.0.1:8000", "anybody?"); got != "connection refused" {
			t.Fatalf("without a server: %q", got)
		}
		stop := echoUDP(t, "127.0.0.1:8000")
		f := b.openUDP(t, "127.0.0.1:8000")
		f.send("hello")
		if got := f.outcome(t); got != "hello" {
			t.Fatalf("with a server: %q", got)
		}
		stop()
		f.send("still there?")
		if got := f.outcome(t); got != "connection refused" {
			t.Fatalf("after the server: %q", got)
		}
		wait.Until(t, patience, "the port is refused", func() bool {
			p := b.port(message.UDP, 8000)
			return p.State == Refused && p.Reason == "the service has gone"
		})
		// A server that is back before anything was sent is not missed.
		stop = echoUDP(t, "127.0.0.1:8000")
		f = b.openUDP(t, "127.0.0.1:8000")
		f.send("one")
		if got := f.outcome(t); got != "one" {
			t.Fatal(got)
		}
		stop()
		stop = echoUDP(t, "127.0.0.1:8000")
		f.send("two")
		if got := f.outcome(t); got != "two" {
			t.Fatalf("after a restart: %q", got)
		}
		stop()
	}
}

// The link's reader never waits for what decides about a flow, and what comes
// meanwhile is not lost.
func TestSlowOwn(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	echoUDP(t, "127.0.0.1:8000")
	greet(t, "127.0.0.1:8000")
	slow := make(chan struct{})
	b := newBed(t, func(c *Config) {
		c.Own = func(p message.Protocol, _ netip.AddrPort) bool {
			if p == message.UDP {
				<-slow
			}
			return false
		}
	})
	f := b.openUDP(t, "127.0.0.1:8000")
	for i := range 50 {
		f.send(fmt.Sprint(i))
	}
	if got := b.tryTCP(t, "127.0.0.1:8000"); got != "127.0.0.1:8000" {
		t.Errorf("TCP beside it: %q", got)
	}
	// The datagrams came before TCP's request: none may have been given up here.
	if p := b.port(message.UDP, 8000); p.DroppedDatagrams != 0 {
		t.Errorf("%d datagrams were dropped", p.DroppedDatagrams)
	}
	close(slow)
	for i := range 50 {
		if got := f.outcome(t); got != fmt.Sprint(i) {
			t.Fatalf("got %q instead of %d", got, i)
		}
	}
}
