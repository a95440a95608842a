package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// rawPeer is the far end of a connection, which says what a test wants it to.
type rawPeer struct {
	net.Conn
	host bool // it plays the host
}

// hello is what a raw host says for a session of one connection.
func hello() wire.Hello {
	return wire.Hello{MinVersion: 1, MaxVersion: 1, Auth: wire.AuthKey, Session: [16]byte{1}, Count: 1, InitialCredit: 1 << 20}
}

// greetAs takes a connection to a server through the handshake.
func greetAs(nc net.Conn, h wire.Hello, key []byte) (wire.Welcome, error) {
	frame := wire.AppendHello(nil, h)
	if _, err := nc.Write(frame); err != nil {
		return wire.Welcome{}, err
	}
	challenge, err := expectFrame(nc, wire.TypeChallenge)
	if err != nil {
		return wire.Welcome{}, err
	}
	if _, err := nc.Write(wire.AppendProof(nil, wire.HostProof(key, frame[wire.HeaderSize:], challenge))); err != nil {
		return wire.Welcome{}, err
	}
	payload, err := expectFrame(nc, wire.TypeWelcome)
	if err != nil {
		return wire.Welcome{}, err
	}
	return wire.ParseWelcome(payload)
}

// welcomeAs takes a connection from a connector through the handshake.
func welcomeAs(nc net.Conn, challenge wire.Challenge, epoch uint64) error {
	hello, err := expectFrame(nc, wire.TypeHello)
	if err != nil {
		return err
	}
	frame := wire.AppendChallenge(nil, challenge)
	if _, err := nc.Write(frame); err != nil {
		return err
	}
	if _, err := expectFrame(nc, wire.TypeProof); err != nil {
		return err
	}
	proof := wire.GuestProof(testKey, hello, frame[wire.HeaderSize:], epoch)
	_, err = nc.Write(wire.AppendWelcome(nil, wire.Welcome{Proof: proof, Epoch: epoch, Name: "raw"}))
	return err
}

func challenge() wire.Challenge {
	return wire.Challenge{Version: 1, Auth: wire.AuthKey, InitialCredit: 1 << 20}
}

// expectFrame reads a frame of a type; a goodbye becomes its error.
func expectFrame(r io.Reader, want wire.Type) ([]byte, error) {
	h, payload, err := link.ReadFrame(r)
	if err != nil {
		return nil, err
	}
	if h.Type == wire.TypeGoodbye && want != wire.TypeGoodbye {
		g, err := wire.ParseGoodbye(payload)
		return nil, errors.Join(&link.GoodbyeError{Code: g.Code, Reason: g.Reason}, err)
	}
	if h.Type != want {
		return nil, errors.New("a " + h.Type.String() + " frame instead of " + want.String())
	}
	return payload, nil
}

// until reads frames up to the first of a type.
func (p *rawPeer) until(t testing.TB, want wire.Type) (wire.Header, []byte) {
	t.Helper()
	for {
		h, payload, err := link.ReadFrame(p)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if h.Type == want {
			return h, payload
		}
	}
}

// alive checks that the session still answers, and skips what it says before.
func (p *rawPeer) alive(t testing.TB) {
	t.Helper()
	p.send(t, wire.AppendFrame(nil, wire.TypePing, 0, []byte("still there?")))
	if _, payload := p.until(t, wire.TypePong); string(payload) != "still there?" {
		t.Errorf("pong of %q", payload)
	}
}

func (p *rawPeer) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := p.Write(f); err != nil {
			t.Fatal(err)
		}
	}
}

// flow numbers the flows that the peer opens.
func (p *rawPeer) flow(n uint32) uint32 {
	if p.host {
		return 2*n - 1
	}
	return 2 * n
}

func (p *rawPeer) open(n uint32, network wire.Network, destination netip.AddrPort) []byte {
	return wire.AppendOpen(nil, p.flow(n), wire.Open{Network: network, Source: loopback, Destination: destination})
}

// victim is one end of a link whose peer is raw.
type victim struct {
	*end
	session *link.Session
	peer    *rawPeer
	// again makes another link, after the first has ended.
	again func() *rawPeer
	stop  func()
}

// attackGuest starts a server and connects to it as a raw host; in memory, or
// over a unix socket.
func attackGuest(t testing.TB, memory bool, change func(*link.Config), h wire.Hello) *victim {
	t.Helper()
	v := &victim{end: newEnd()}
	cfg := link.Config{Key: testKey, Name: "victim", Handler: v.end, Log: quietLog()}
	if change != nil {
		change(&cfg)
	}
	v.hide = memory
	w := attackWay(t, memory)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	server := link.NewServer(cfg)
	work.Go(func() { _ = server.Serve(ctx, w.listener) })
	v.stop = sync.OnceFunc(func() { cancel(); work.Wait(); v.close() })
	t.Cleanup(v.stop)
	v.again = func() *rawPeer {
		t.Helper()
		nc, err := w.dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience))
		h.Session[0]++
		if _, err := greetAs(nc, h, testKey); err != nil {
			t.Fatal(err)
		}
		v.session = wait.For(t, patience, "the session", v.up)
		return &rawPeer{Conn: nc, host: true}
	}
	v.peer = v.again()
	return v
}

// attackHost starts a connector that dials a raw guest.
func attackHost(t testing.TB, memory bool, change func(*link.Config), c wire.Challenge) *victim {
	t.Helper()
	v := &victim{end: newEnd()}
	cfg := link.Config{Key: testKey, Handler: v.end, Log: quietLog()}
	if change != nil {
		change(&cfg)
	}
	v.hide = memory
	w := attackWay(t, memory)
	disconnect := func() {}
	v.stop = sync.OnceFunc(func() { disconnect(); v.close() })
	t.Cleanup(func() { v.stop(); _ = w.listener.Close() })
	v.again = func() *rawPeer {
		t.Helper()
		// A new connector, which does not wait as one that has just failed.
		disconnect()
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		connector := link.Connector{Config: cfg, Dial: w.dial, Conns: 1, Changed: func(link.State) {}}
		work.Go(func() { _ = connector.Run(ctx) })
		disconnect = func() { cancel(); work.Wait() }
		for {
			nc, err := w.listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = nc.Close() })
			_ = nc.SetDeadline(time.Now().Add(patience))
			if err := welcomeAs(nc, c, 7); err != nil {
				continue // the last word of an earlier connector
			}
			v.session = wait.For(t, patience, "the session", v.up)
			return &rawPeer{Conn: nc}
		}
	}
	v.peer = v.again()
	return v
}

func attackWay(t testing.TB, memory bool) way {
	if memory {
		return memoryCarrier(1).open(t)
	}
	path := filepath.Join(t.TempDir(), "link.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return way{l, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}, testKey}
}

// attacks runs a test against both ends, over a socket and in memory.
func attacks(t *testing.T, change func(*link.Config), test func(*testing.T, *victim)) {
	for _, memory := range []bool{false, true} {
		name := map[bool]string{false: "unix", true: "memory"}[memory]
		t.Run("guest over "+name, func(t *testing.T) { test(t, attackGuest(t, memory, change, hello())) })
		t.Run("host over "+name, func(t *testing.T) { test(t, attackHost(t, memory, change, challenge())) })
	}
}
