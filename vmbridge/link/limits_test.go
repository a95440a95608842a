package link_test

import (
	"errors"
	"net"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// The flows that this side opens are limited: a client beyond is reset, and what
// ended makes room. Lower limits end nothing, and Config has those of the start.
func TestOwnFlows(t *testing.T) {
	b := newBridge(t, unixCarrier(2), answering(loopBack), bridgeOptions{host: func(cfg *link.Config) { cfg.MaxFlows = 3 }})
	addr := b.forward(t, b.session, serveTCP(t, echo))
	open := func() *net.TCPConn {
		c := dialTCP(t, addr)
		speak(t, c)
		return c
	}
	refused := func() {
		t.Helper()
		refusesTCP(t, addr)
		if _, err := b.session.OpenDatagrams(loopback, loopback, 0, &b.stats, nil, nil); !errors.Is(err, link.ErrTooManyFlows) {
			t.Errorf("an association too many: %v", err)
		}
	}
	clients := []*net.TCPConn{open(), open()}
	udp := associate(t, b.session, loopback, &b.stats)
	refused()
	b.session.SetLimits(5, 0)
	clients = append(clients, open(), open())
	refused()
	b.session.SetLimits(1, 0)
	refused()
	for _, c := range clients {
		speak(t, c)
	}
	udp.send([]byte("x"))
	wait.For(t, patience, "an echo", udp.received)
	for _, c := range clients {
		_ = c.Close()
	}
	udp.flow.Close(wire.CodeIdle)
	wait.Until(t, patience, "the flows to end", func() bool { return b.stats.Flows.Load() == 0 })
	open()
	refused()
	b.session.SetLimits(0, 0)
	open()
	if n := b.stats.Flows.Load(); n != 2 {
		t.Errorf("%d flows", n)
	}
}

// The limit of what the peer opens follows, too. It is the session's, however
// many connections that has.
func TestSetForeignFlows(t *testing.T) {
	b := newBridge(t, unixCarrier(2), answering(loopBack))
	try := func() wire.Code {
		a := associate(t, b.session, loopback, &b.stats)
		a.send([]byte("x"))
		select {
		case <-a.received:
			return 0
		case code := <-a.ended:
			return code
		case <-t.Context().Done():
			return 0
		}
	}
	for i, want := range []wire.Code{0, 0, wire.CodeResources} {
		b.remote.SetLimits(2, 0)
		if code := try(); code != want {
			t.Errorf("flow %d: %s", i, code)
		}
	}
	b.remote.SetLimits(3, 0)
	if code := try(); code != 0 {
		t.Errorf("with a higher limit: %s", code)
	}
	b.remote.SetLimits(1, 0)
	if code, n := try(), b.remote.Flows(); code != wire.CodeResources || n != 3 {
		t.Errorf("with a lower limit: %s, %d flows", code, n)
	}
}

// A lower bound on what is queued leaves what is, and resets who adds to it.
func TestSetQueuedBytes(t *testing.T) {
	b := newBridge(t, unixCarrier(1))
	pair := b.pairs(t)
	stalled, _ := pair(t) // the server does not read
	writeUntilStalled(t, stalled)
	wait.Until(t, patience, "a queue", func() bool { return b.remote.Queued() > 0 })
	held := b.remote.Queued()
	b.remote.SetLimits(0, 1)
	if n := b.remote.Queued(); n != held {
		t.Errorf("%d bytes are queued, before %d", n, held)
	}
	client, server := pair(t)
	var err error
	for err == nil {
		_, err = client.Write(make([]byte, 1<<16))
	}
	if !errors.Is(err, connReset) {
		t.Errorf("a flow beyond the limit sees %v", err)
	}
	_ = server.Close()
	b.remote.SetLimits(0, 0)
	client, server = pair(t)
	go func() { defer server.Close(); echo(server) }()
	roundTrip(t, client, 1<<20)
}
