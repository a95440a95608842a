package link_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// startServer serves a listener until the returned function is called.
func startServer(t testing.TB, l net.Listener, cfg link.Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	cfg.Log = quietLog()
	go func() {
		defer close(done)
		_ = link.NewServer(cfg).Serve(ctx, l)
	}()
	stop = sync.OnceFunc(func() { cancel(); await(t, "the server to stop", done) })
	t.Cleanup(stop)
	return stop
}

// startConnector runs a connector until the returned function is called.
func startConnector(t testing.TB, conns int, dial func(context.Context) (net.Conn, error), cfg link.Config) (states chan link.State, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	states = make(chan link.State, 4096)
	cfg.Log = quietLog()
	connector := link.Connector{Config: cfg, Dial: dial, Conns: conns, Changed: func(s link.State) { states <- s }}
	go func() {
		defer close(done)
		_ = connector.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); await(t, "the connector to stop", done) })
	t.Cleanup(stop)
	return states, stop
}

// awaitPhase skips states up to the first of a phase.
func awaitPhase(t testing.TB, states <-chan link.State, phase link.Phase) link.State {
	t.Helper()
	for {
		if s := await(t, "phase "+string(phase), states); s.Phase == phase {
			return s
		}
	}
}

// G5: who does not hold the key, or speaks another version, is refused, and the
// host can say why.
func TestRefusals(t *testing.T) {
	otherKey := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		name         string
		host, guest  []byte
		reason, what string
	}{
		{"wrong key", otherKey, testKey, "wrong key", "the host's key is not the key of this guest"},
		{"no key at the host", nil, testKey, "a key is needed", "started with a link key"},
		{"no key at the guest", testKey, nil, "wrong key", "started without a link key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newMemoryListener()
			guest, host := newEnd(), newEnd()
			startServer(t, l, link.Config{Key: c.guest, Handler: guest})
			states, _ := startConnector(t, 2, l.dial, link.Config{Key: c.host, Handler: host})
			if s := await(t, "a state", states); s != (link.State{Phase: link.Connecting}) {
				t.Errorf("first %+v", s)
			}
			s := await(t, "a refusal", states)
			if s.Phase != link.Refused || !strings.Contains(s.Reason, c.reason) || !strings.Contains(s.Reason, c.what) {
				t.Errorf("%+v", s)
			}
			if len(guest.up)+len(host.up) > 0 {
				t.Error("a session came up")
			}
		})
	}
}

// G5: an impostor of the guest learns nothing that lets it pass.
func TestImpostors(t *testing.T) {
	for _, c := range []struct {
		name  string
		phase link.Phase
		is    string
		play  func(nc net.Conn)
	}{
		{"does not know the key", link.Refused, "does not hold this link's key", func(nc net.Conn) {
			if _, err := expectFrame(nc, wire.TypeHello); err == nil {
				_, _ = nc.Write(wire.AppendChallenge(nil, challenge()))
				_, _ = expectFrame(nc, wire.TypeProof)
				_, _ = nc.Write(wire.AppendWelcome(nil, wire.Welcome{Epoch: 1}))
			}
		}},
		{"sends the host's proof back", link.Refused, "does not hold this link's key", func(nc net.Conn) {
			if _, err := expectFrame(nc, wire.TypeHello); err == nil {
				_, _ = nc.Write(wire.AppendChallenge(nil, challenge()))
				proof, _ := expectFrame(nc, wire.TypeProof)
				if len(proof) == 32 {
					_, _ = nc.Write(wire.AppendWelcome(nil, wire.Welcome{Proof: wire.Proof(proof), Epoch: 1}))
				}
			}
		}},
		{"wants no proof", link.Refused, "another kind of proof", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, wire.Challenge{Version: 1}))
		}},
		{"chooses a version that was not offered", link.Down, "version 9 was not offered", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, wire.Challenge{Version: 9, Auth: wire.AuthKey}))
		}},
		{"says goodbye", link.Refused, "wrong version: guest speaks 7", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendGoodbye(nil, wire.Goodbye{Code: wire.CodeWrongVersion, Reason: "guest speaks 7"}))
		}},
		{"is a web server", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n"))
		}},
		{"speaks first", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			go func() { _, _ = expectFrame(nc, wire.TypeHello) }()
			_, _ = nc.Write([]byte("220 mail.example ESMTP\r\n"))
		}},
		{"hangs up", link.Down, link.ErrNotAPeer.Error(), func(net.Conn) {}},
		{"hangs up in the middle", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, challenge())[:20])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newMemoryListener()
			var work sync.WaitGroup
			work.Go(func() {
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					_ = nc.SetDeadline(time.Now().Add(patience))
					c.play(nc)
					_ = nc.Close()
				}
			})
			host := newEnd()
			states, stop := startConnector(t, 1, l.dial, link.Config{Key: testKey, Handler: host})
			awaitPhase(t, states, link.Connecting)
			if s := await(t, "a state", states); s.Phase != c.phase || !strings.Contains(s.Reason, c.is) {
				t.Errorf("%+v", s)
			}
			stop()
			_ = l.Close()
			work.Wait()
			if len(host.up) > 0 {
				t.Error("a session came up")
			}
		})
	}
}

// G5: strangers at the guest are refused with the reason, and a real host gets
// in all the same.
func TestStrangers(t *testing.T) {
	l := newMemoryListener()
	guest := newEnd()
	startServer(t, l, link.Config{Key: testKey, Name: "guest", Handler: guest})
	dial := func() net.Conn {
		nc, err := l.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience))
		return nc
	}
	refusedAs := func(what string, code wire.Code, h wire.Hello, key []byte) {
		t.Helper()
		_, err := greetAs(dial(), h, key)
		var g *link.GoodbyeError
		if !errors.As(err, &g) || g.Code != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	with := func(change func(*wire.Hello)) wire.Hello { h := hello(); change(&h); return h }

	refusedAs("a wrong key", wire.CodeWrongKey, hello(), []byte("not the key"))
	refusedAs("a later version", wire.CodeWrongVersion, with(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 2, 9 }), testKey)
	refusedAs("an impossible range", wire.CodeWrongVersion, with(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 9, 1 }), testKey)
	refusedAs("no proof", wire.CodeNoKey, with(func(h *wire.Hello) { h.Auth = wire.AuthNone }), testKey)
	refusedAs("an unknown proof", wire.CodeNoKey, with(func(h *wire.Hello) { h.Auth = 9 }), testKey)
	refusedAs("too many connections", wire.CodeProtocolError, with(func(h *wire.Hello) { h.Count = 17 }), testKey)
	second := func(h *wire.Hello) { h.Index, h.Count = 1, 2 }
	refusedAs("an unknown epoch", wire.CodeStaleSession, with(func(h *wire.Hello) { second(h); h.Epoch = 5 }), testKey)

	nc := dial()
	welcome, err := greetAs(nc, with(func(h *wire.Hello) { h.Count = 2 }), testKey)
	if err != nil || welcome.Name != "guest" || welcome.Epoch == 0 {
		t.Fatalf("%+v, %v", welcome, err)
	}
	await(t, "a session", guest.up)
	refusedAs("the same session", wire.CodeStaleSession, with(func(h *wire.Hello) { h.Count = 2 }), testKey)
	refusedAs("another count", wire.CodeStaleSession,
		with(func(h *wire.Hello) { h.Index, h.Count, h.Epoch = 1, 3, welcome.Epoch }), testKey)
	refusedAs("another session", wire.CodeStaleSession,
		with(func(h *wire.Hello) { second(h); h.Epoch, h.Session = welcome.Epoch, [16]byte{9} }), testKey)
	if _, err := greetAs(dial(), with(func(h *wire.Hello) { second(h); h.Epoch = welcome.Epoch }), testKey); err != nil {
		t.Errorf("the second connection: %v", err)
	}
	// A third one has no place, and does no harm.
	extra := dial()
	if _, err := greetAs(extra, with(func(h *wire.Hello) { second(h); h.Epoch = welcome.Epoch }), testKey); err == nil {
		if _, _, err := readFrame(extra); err == nil {
			t.Error("a third connection of two says something")
		}
	}
	_ = nc.Close()
	await(t, "the end", guest.down)

	for n := range 300 { // every piece of a hello, garbage, and frames out of place
		nc := dial()
		h := wire.AppendHello(nil, hello())
		switch {
		case n < len(h):
			_, _ = nc.Write(h[:n])
		case n < 200:
			garbage := make([]byte, 100)
			_, _ = rand.Read(garbage)
			_, _ = nc.Write(garbage)
		default:
			_, _ = nc.Write(wire.AppendFrame(nil, wire.Type(n), 0, make([]byte, 10)))
		}
		_ = nc.Close()
	}
	eventually(t, "a real host to get in", func() bool {
		// The strangers may still hold all places for handshakes.
		nc := dial()
		_, err := greetAs(nc, hello(), testKey)
		return err == nil
	})
	await(t, "its session", guest.up)
}

// G5: the ninth host is told so, and gets in when another leaves.
func TestTooManyHosts(t *testing.T) {
	l := newMemoryListener()
	guest := newEnd()
	startServer(t, l, link.Config{Key: testKey, Handler: guest})
	var stops []func()
	for range link.MaxSessions {
		states, stop := startConnector(t, 1, l.dial, link.Config{Key: testKey, Handler: newEnd()})
		awaitPhase(t, states, link.Up)
		stops = append(stops, stop)
	}
	states, _ := startConnector(t, 1, l.dial, link.Config{Key: testKey, Handler: newEnd()})
	if s := awaitPhase(t, states, link.Refused); !strings.Contains(s.Reason, "too many links: 8 hosts") {
		t.Errorf("%+v", s)
	}
	stops[3]()
	awaitPhase(t, states, link.Up)
}

// G3: a restarted agent has a new epoch; the host comes back by itself, with the
// reason in between, on whichever connection it arrives first.
func TestAgentRestarts(t *testing.T) {
	for _, c := range []carrier{unixCarrier(4), memoryCarrier(4)} {
		t.Run(c.name, func(t *testing.T) {
			w := c.open(t)
			host := newEnd()
			current := w.listener
			var mu sync.Mutex
			dial := w.dial
			states, _ := startConnector(t, c.conns, func(ctx context.Context) (net.Conn, error) {
				mu.Lock()
				d := dial
				mu.Unlock()
				return d(ctx)
			}, link.Config{Key: testKey, Handler: host})
			epochs := map[uint64]bool{}
			for range 5 {
				guest := newEnd()
				stop := startServer(t, current, link.Config{Key: testKey, Name: "guest", Handler: guest})
				awaitPhase(t, states, link.Up)
				eventually(t, "all connections to join", await(t, "the guest's session", guest.up).Complete)
				s := await(t, "a session", host.up)
				if s.Name() != "guest" || epochs[s.Epoch()] {
					t.Errorf("guest %q, epoch %d", s.Name(), s.Epoch())
				}
				epochs[s.Epoch()] = true
				stop()
				if down := awaitPhase(t, states, link.Down); down.Reason != "the peer ended the link: shut down: the agent stops" {
					t.Errorf("down because %s", down.Reason)
				}
				await(t, "the end", host.down)
				next := c.open(t)
				mu.Lock()
				dial, current = next.dial, next.listener
				mu.Unlock()
			}
		})
	}
}

// When one of several connections dies, so does the session, and a new one comes.
func TestOneConnectionDies(t *testing.T) {
	for index := range 3 {
		l := newMemoryListener()
		guest := newEnd()
		startServer(t, l, link.Config{Key: testKey, Handler: guest})
		conns := make(chan net.Conn, 1024)
		states, stop := startConnector(t, 3, func(ctx context.Context) (net.Conn, error) {
			nc, err := l.dial(ctx)
			if err == nil {
				conns <- nc
			}
			return nc, err
		}, link.Config{Key: testKey, Handler: newEnd()})
		awaitPhase(t, states, link.Up)
		await(t, "a session", guest.up)
		for range index {
			<-conns
		}
		_ = (<-conns).Close()
		awaitPhase(t, states, link.Down)
		if err := await(t, "the guest's end", guest.down); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the guest's session ended with %v", err)
		}
		awaitPhase(t, states, link.Up)
		stop()
	}
}

// A server that stops while hosts come does stop, and leaves nothing behind.
func TestServerStopsWhileHostsCome(t *testing.T) {
	baseline := settled(t)
	for range 30 {
		l := newMemoryListener()
		stop := startServer(t, l, link.Config{Key: testKey, Handler: newEnd()})
		var stops []func()
		for range 4 {
			_, stop := startConnector(t, 2, l.dial, link.Config{Key: testKey, Handler: newEnd()})
			stops = append(stops, stop)
		}
		stop()
		for _, stop := range stops {
			stop()
		}
	}
	checkUsage(t, baseline, 0)
}

// Every session is told up once and down once, in this order, and its messages
// arrive in order, both ways.
func TestMessages(t *testing.T) {
	for _, c := range carriers()[:2] {
		b := newBridge(t, c)
		const count = 1000
		for from, to := range map[*link.Session]*end{b.session: b.guest, b.remote: b.host} {
			go func() {
				for i := range count {
					if err := from.Send(message.Message{Listeners: &message.Listeners{Dropped: i}}); err != nil {
						t.Error(err)
						return
					}
				}
			}()
			for i := range count {
				if m := await(t, "a message", to.heard); m.Listeners == nil || m.Listeners.Dropped != i {
					t.Fatalf("message %d is %+v", i, m)
				}
			}
		}
		b.stop()
		if len(b.host.down) != 1 || len(b.guest.down) != 1 {
			t.Errorf("told down %d and %d times", len(b.host.down), len(b.guest.down))
		}
		if err := b.session.Send(message.Message{}); err == nil {
			t.Error("a message was sent on a session that is over")
		}
	}
}

// A guest on standard input and output serves one session and returns.
func TestServeConn(t *testing.T) {
	host, guest := net.Pipe()
	served := make(chan error, 1)
	g, h := newEnd(), newEnd()
	go func() {
		served <- link.NewServer(link.Config{Handler: g, Log: quietLog()}).ServeConn(context.Background(), guest)
	}()
	dialled := false
	states, stop := startConnector(t, 1, func(context.Context) (net.Conn, error) {
		if dialled {
			return nil, errors.New("once only")
		}
		dialled = true
		return host, nil
	}, link.Config{Handler: h})
	awaitPhase(t, states, link.Up)
	stop()
	if err := await(t, "the guest to return", served); err != nil {
		t.Error(err)
	}

	a, b := net.Pipe()
	go func() {
		served <- link.NewServer(link.Config{Key: testKey, Handler: g, Log: quietLog()}).ServeConn(context.Background(), b)
	}()
	if _, err := greetAs(a, hello(), []byte("wrong")); err == nil {
		t.Error("a wrong key is welcome")
	}
	if err := await(t, "the guest to return", served); err == nil {
		t.Error("a refusal is no error")
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, d := net.Pipe()
	if err := link.NewServer(link.Config{Handler: g, Log: quietLog()}).ServeConn(ctx, d); err == nil {
		t.Error("served after the end")
	}
}
