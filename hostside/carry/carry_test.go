package carry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/linkpair"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const patience = 10 * time.Second

// end is the handler of one end of the test's link. As the guest it echoes
// every datagram, and remembers which flows it has seen.
type end struct {
	linkpair.Nobody

	mu    sync.Mutex
	flows []*link.DatagramFlow
	ended map[*link.DatagramFlow]wire.Code
}

func (e *end) Datagrams(f *link.DatagramFlow) {
	e.mu.Lock()
	e.flows = append(e.flows, f)
	e.mu.Unlock()
	var echo link.DatagramBatch
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			echo.Add(f, p)
		}
		echo.Send()
	}, func(code wire.Code) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ended[f] = code
	})
}

func (e *end) counts() (opened, ended int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.flows), len(e.ended)
}

// newLink joins a host to an echoing guest, and gives both.
func newLink(t *testing.T) (host *link.Session, guest *end) {
	t.Helper()
	guest = &end{ended: map[*link.DatagramFlow]wire.Code{}}
	return linkpair.New(t, linkpair.Nobody{}, guest, 2).Host, guest
}

// serveUDP lets a carrier serve a socket on address for the length of a test.
func serveUDP(t *testing.T, c *Carrier, address string, keep func(netip.Addr) bool) (netip.AddrPort, *link.Stats) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	stats := new(link.Stats)
	done := make(chan error, 1)
	go func() { done <- c.CarryUDP(conn, netip.MustParseAddrPort("127.0.0.1:9"), keep, stats) }()
	t.Cleanup(func() {
		_ = conn.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serving ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("serving did not end with its socket")
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), stats
}

// ask sends a datagram and waits for its echo.
func ask(t *testing.T, conn *net.UDPConn, payload string) {
	t.Helper()
	if err := tryAsk(conn, payload, patience); err != nil {
		t.Fatal(err)
	}
}

func tryAsk(conn *net.UDPConn, payload string, wait time.Duration) error {
	if _, err := conn.Write([]byte(payload)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if !bytes.Equal(buf[:n], []byte(payload)) {
		return fmt.Errorf("got %q, want %q", buf[:n], payload)
	}
	return nil
}

func dialUDP(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// E1: many clients of one socket, each gets its own replies; and the client of
// a wildcard socket gets them from the address that it asked.
func TestEveryReplyReachesItsClient(t *testing.T) {
	host, _ := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, stats := serveUDP(t, c, "0.0.0.0:0", nil)
	var clients []*net.UDPConn
	for i := range 50 {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i%3)}), at.Port())
		clients = append(clients, dialUDP(t, to)) // connected: replies from elsewhere are not seen
	}
	for round := range 3 {
		for i, client := range clients {
			ask(t, client, fmt.Sprintf("client %d, round %d", i, round))
		}
	}
	if flows := stats.Flows.Load(); flows != 50 {
		t.Errorf("%d flows for 50 clients", flows)
	}
	if in, out := stats.BytesIn.Load(), stats.BytesOut.Load(); in != out || in == 0 {
		t.Errorf("%d bytes in, %d out", in, out)
	}
}

// E3: after the idle time the association is gone on both sides, and the same
// client works again.
func TestIdleAssociationsEndAndComeBack(t *testing.T) {
	host, guest := newLink(t)
	c := New(association.Limits{Idle: 50 * time.Millisecond})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	client := dialUDP(t, at)
	ask(t, client, "one")
	wait.Until(t, patience, "the end of the idle association", func() bool { _, ended := guest.counts(); return ended == 1 })
	guest.mu.Lock()
	code := guest.ended[guest.flows[0]]
	guest.mu.Unlock()
	if code != wire.CodeIdle {
		t.Errorf("it ended with %s", code)
	}
	if n := stats.Flows.Load(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	ask(t, client, "two")
	if opened, _ := guest.counts(); opened != 2 {
		t.Errorf("%d flows were opened", opened)
	}
}

// A new idle time holds for clients that are there.
func TestSetUDPIdle(t *testing.T) {
	host, guest := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, _ := serveUDP(t, c, "127.0.0.1:0", nil)
	client := dialUDP(t, at)
	ask(t, client, "one")
	c.SetUDPIdle(50 * time.Millisecond)
	wait.Until(t, patience, "the end of the idle association", func() bool { _, ended := guest.counts(); return ended == 1 })
	ask(t, client, "two")
}

// Where the link is full, a new client takes the place of the least recent one.
func TestFullLink(t *testing.T) {
	host, guest := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(host)
	host.SetLimits(2, 0)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	for i := range 5 {
		ask(t, dialUDP(t, at), fmt.Sprintf("client %d", i))
	}
	wait.Until(t, patience, "three to go", func() bool { _, ended := guest.counts(); return ended == 3 })
	if n := stats.Flows.Load(); n != 2 {
		t.Errorf("%d flows", n)
	}
}

// Without a session there is nothing to cut, and retired Stats carry nothing over
// the next.
func TestCutRetired(t *testing.T) {
	host, _ := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.CutRetired()
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	other, _ := serveUDP(t, c, "127.0.0.1:0", nil)
	c.SetSession(host)
	retired, kept := dialUDP(t, at), dialUDP(t, other)
	ask(t, retired, "one")
	ask(t, kept, "one")
	stats.Retire()
	c.CutRetired()
	ask(t, kept, "two")
	if err := tryAsk(retired, "two", 50*time.Millisecond); err == nil {
		t.Error("retired Stats have a flow")
	}
	if n := stats.Flows.Load(); n != 0 {
		t.Errorf("%d flows", n)
	}
}

// E3: at the limit the least recently used association goes, and not the one
// that is in use.
func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	host, guest := newLink(t)
	c := New(association.Limits{Associations: 3})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	clients := make([]*net.UDPConn, 4)
	for i := range clients {
		clients[i] = dialUDP(t, at)
	}
	for _, i := range []int{0, 1, 2, 0, 3} {
		ask(t, clients[i], fmt.Sprintf("client %d", i))
	}
	wait.Until(t, patience, "an eviction", func() bool { _, ended := guest.counts(); return ended == 1 })
	guest.mu.Lock()
	_, evicted := guest.ended[guest.flows[1]]
	guest.mu.Unlock()
	if !evicted {
		t.Error("another than client 1 had to go")
	}
	if n := stats.Flows.Load(); n != 3 {
		t.Errorf("%d flows, the limit is 3", n)
	}
	ask(t, clients[1], "client 1 again")
}

// A flood of clients must neither grow the table nor stop the service.
func TestManyClientsStayWithinTheLimit(t *testing.T) {
	host, _ := newLink(t)
	c := New(association.Limits{Associations: 100})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	for i := range 1000 {
		client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		if err := tryAsk(client, fmt.Sprint(i), patience); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		_ = client.Close()
	}
	if n := stats.Flows.Load(); n != 100 {
		t.Errorf("%d flows, the limit is 100", n)
	}
}

// E4: a client that is gone when its reply comes ends nothing.
func TestRefusedRepliesEndNothing(t *testing.T) {
	host, _ := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	for range 100 {
		gone := dialUDP(t, at)
		if _, err := gone.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = gone.Close()
	}
	// Ports, and so associations, may be used again: count the bytes.
	wait.Until(t, patience, "a reply to each", func() bool { return stats.BytesOut.Load() == 100 })
	ask(t, dialUDP(t, at), "still here")
}

func TestUnwantedPeersAreDropped(t *testing.T) {
	host, guest := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(host)
	at, _ := serveUDP(t, c, "127.0.0.1:0", func(netip.Addr) bool { return false })
	if err := tryAsk(dialUDP(t, at), "x", 50*time.Millisecond); err == nil {
		t.Error("an unwanted peer got an answer")
	}
	if opened, _ := guest.counts(); opened != 0 {
		t.Errorf("%d flows for an unwanted peer", opened)
	}
}

// The socket of a forward outlives the session: what comes in between is
// dropped and counted, and the same client works on the next session.
func TestANewSessionTakesOver(t *testing.T) {
	first, _ := newLink(t)
	second, _ := newLink(t)
	c := New(association.Limits{})
	t.Cleanup(c.Close)
	c.SetSession(first)
	at, stats := serveUDP(t, c, "127.0.0.1:0", nil)
	client := dialUDP(t, at)
	ask(t, client, "first")
	first.Close(wire.CodeShutdown, "test")
	<-first.Done()
	c.SetSession(nil)
	wait.Until(t, patience, "the end of the flow", func() bool { return stats.Flows.Load() == 0 })
	if _, err := client.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, patience, "a counted drop", func() bool { return stats.DroppedDatagrams.Load() == 1 })
	c.SetSession(second)
	ask(t, client, "second")
}

// Without a session a TCP client is reset at once, not left hanging.
func TestTCPWithoutASessionIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	New(association.Limits{}).CarryTCP(accepted.(*net.TCPConn), netip.MustParseAddrPort("127.0.0.1:9"), new(link.Stats))
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want a reset", err)
	}
}
