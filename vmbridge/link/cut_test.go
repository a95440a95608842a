package link_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// forwardWith is a forward with Stats of its own.
func (b *bridge) forwardWith(t testing.TB, destination netip.AddrPort, stats *link.Stats) string {
	t.Helper()
	return acceptTCP(t, func(c *net.TCPConn, _ *sync.WaitGroup) {
		_ = b.session.OpenStream(b.host.socket(c), c.RemoteAddr().(*net.TCPAddr).AddrPort(), destination, stats)
	}).String()
}

// speak has an echo repeat a few bytes, and leaves the connection open.
func speak(t testing.TB, c *net.TCPConn) {
	t.Helper()
	got := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	} else if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("the echo said %q, %v", got, err)
	}
}

// refusesTCP wants a forward to reset its next client.
func refusesTCP(t testing.TB, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, connReset) {
		t.Errorf("a client that is to be refused sees %v", err)
	}
}

// Cutting the flows of one forward resets both ends of each, refuses newcomers,
// and leaves other forwards alone.
func TestCutRetired(t *testing.T) {
	b := newBridge(t, unixCarrier(2), answering(loopBack))
	server := serveTCP(t, echo)
	var retired, kept link.Stats
	doomed, spared := b.forwardWith(t, server, &retired), b.forwardWith(t, server, &kept)
	var cut, alive []*net.TCPConn
	for range 20 {
		cut, alive = append(cut, dialTCP(t, doomed)), append(alive, dialTCP(t, spared))
	}
	for _, c := range append(cut, alive...) {
		speak(t, c)
	}
	udp, other := associate(t, b.session, loopback, &retired), associate(t, b.session, loopback, &kept)

	b.session.CutRetired() // none is
	for _, c := range append(cut, alive...) {
		speak(t, c)
	}
	retired.Retire()
	for _, c := range cut {
		speak(t, c) // not cut yet
	}
	b.session.CutRetired()
	if n := retired.Flows.Load(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	for _, c := range cut {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, connReset) {
			t.Errorf("a flow that was cut sees %v", err)
		}
	}
	refusesTCP(t, doomed)
	wait.For(t, patience, "the end of the association", udp.ended)
	if _, err := b.session.OpenDatagrams(loopback, loopback, 0, &retired, nil, nil); !errors.Is(err, link.ErrRetired) {
		t.Errorf("another association: %v", err)
	}
	if _, err := b.session.AskStream(loopback, loopback, &retired, nil); !errors.Is(err, link.ErrRetired) {
		t.Errorf("another stream: %v", err)
	}
	for _, c := range alive {
		speak(t, c)
	}
	other.send([]byte("x"))
	wait.For(t, patience, "an echo", other.received)
	wait.Until(t, patience, "the guest's ends to go", func() bool { return b.remote.Flows() == 21 })
	if n, all := retired.Flows.Load(), kept.Flows.Load(); n != 0 || all != 21 || b.session.Flows() != 21 {
		t.Errorf("%d retired flows, %d others, %d in all", n, all, b.session.Flows())
	}
}

// Whoever opens flows while they are cut leaves none behind, on neither side.
func TestCutWhileOpening(t *testing.T) {
	b := newBridge(t, memoryCarrier(2), bridgeOptions{ends: func(_, guest *end) {
		guest.stream = func(*link.Stream) {} // held, until it is reset
		guest.datagrams = func(f *link.DatagramFlow) { f.Accept(func([][]byte) {}, func(wire.Code) {}) }
	}})
	for range 10 {
		var stats link.Stats
		var opening sync.WaitGroup
		begun := make(chan struct{}, 8)
		for range 4 {
			opening.Go(func() {
				for i := 0; ; i++ {
					_, err := b.session.AskStream(loopback, loopback, &stats, nil)
					if errors.Is(err, link.ErrRetired) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if i == 2 {
						begun <- struct{}{}
					}
				}
			})
		}
		opening.Go(func() {
			for {
				_, err := b.session.OpenDatagrams(loopback, loopback, 0, &stats, func([][]byte) {}, func(wire.Code) {})
				if errors.Is(err, link.ErrRetired) {
					return
				}
				if err != nil && !errors.Is(err, link.ErrBusy) {
					t.Error(err)
					return
				}
			}
		})
		wait.For(t, patience, "some flows", begun)
		stats.Retire()
		b.session.CutRetired()
		opening.Wait()
		if n := stats.Flows.Load(); n != 0 || b.session.Flows() != 0 {
			t.Fatalf("%d flows are counted, the session has %d", n, b.session.Flows())
		}
	}
	wait.Until(t, patience, "the guest's ends to go", func() bool { return b.remote.Flows() == 0 })
}
