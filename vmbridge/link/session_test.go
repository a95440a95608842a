package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
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
	stop = sync.OnceFunc(func() { cancel(); wait.For(t, patience, "the server to stop", done) })
	t.Cleanup(stop)
	return stop
}

// startConnector runs a connector until the returned function is called.
func startConnector(t testing.TB, conns int, dial func(context.Context) (net.Conn, error), cfg link.Config) (states chan link.State, stop func()) {
	t.Helper()
	return runConnector(t, link.Connector{Config: cfg, Dial: dial, Conns: conns})
}

// runConnector is startConnector for one that has more to set.
func runConnector(t testing.TB, connector link.Connector) (states chan link.State, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	states = make(chan link.State, 4096)
	connector.Config.Log = quietLog()
	connector.Changed = func(s link.State) { states <- s }
	go func() {
		defer close(done)
		_ = connector.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); wait.For(t, patience, "the connector to stop", done) })
	t.Cleanup(stop)
	return states, stop
}

// awaitPhase skips states up to the first of a phase.
func awaitPhase(t testing.TB, states <-chan link.State, phase link.Phase) link.State {
	t.Helper()
	for {
		if s := wait.For(t, patience, "phase "+string(phase), states); s.Phase == phase {
			return s
		}
	}
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
				wait.Until(t, patience, "all connections to join", wait.For(t, patience, "the guest's session", guest.up).Complete)
				s := wait.For(t, patience, "a session", host.up)
				if s.Name() != "guest" || epochs[s.Epoch()] {
					t.Errorf("guest %q, epoch %d", s.Name(), s.Epoch())
				}
				epochs[s.Epoch()] = true
				stop()
				if down := awaitPhase(t, states, link.Down); down.Reason != "the peer ended the link: shut down: the agent stops" {
					t.Errorf("down because %s", down.Reason)
				}
				wait.For(t, patience, "the end", host.down)
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
		wait.For(t, patience, "a session", guest.up)
		for range index {
			<-conns
		}
		_ = (<-conns).Close()
		awaitPhase(t, states, link.Down)
		if err := wait.For(t, patience, "the guest's end", guest.down); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
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
				if m := wait.For(t, patience, "a message", to.heard); m.Listeners == nil || m.Listeners.Dropped != i {
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
	if err := wait.For(t, patience, "the guest to return", served); err != nil {
		t.Error(err)
	}

	a, b := net.Pipe()
	go func() {
		served <- link.NewServer(link.Config{Key: testKey, Handler: g, Log: quietLog()}).ServeConn(context.Background(), b)
	}()
	if _, err := greetAs(a, hello(), []byte("wrong")); err == nil {
		t.Error("a wrong key is welcome")
	}
	if err := wait.For(t, patience, "the guest to return", served); err == nil {
		t.Error("a refusal is no error")
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, d := net.Pipe()
	if err := link.NewServer(link.Config{Handler: g, Log: quietLog()}).ServeConn(ctx, d); err == nil {
		t.Error("served after the end")
	}
}
