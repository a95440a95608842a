package listeners

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// patience is for a machine that runs other tests at the same time.
const patience = 40 * time.Second

// observer is a running tracker and the state that its reports add up to.
type observer struct {
	t       testing.TB
	tracker *Tracker
	logs    *logtest.Hook

	mu      sync.Mutex
	known   map[message.Key]message.Listener
	seen    map[message.Key]time.Duration // when a key was added first
	removed map[message.Key]time.Duration // when it was removed last
	history map[message.Key][]message.Listener
	batches []message.Listeners
	changed chan struct{} // closed and replaced at every change
}

// modes runs a test with eBPF and with polling.
func modes(t *testing.T, f func(t *testing.T, mode Mode)) {
	t.Run("ebpf", func(t *testing.T) { f(t, Auto) })
	t.Run("poll", func(t *testing.T) { f(t, Poll) })
}

func observe(t testing.TB, cfg Config) *observer {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	cfg.Logger = logger
	tracker, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := tracker.Detection(); cfg.Detect == Auto && (d.State != detectEBPF || d.Reason != "") {
		tracker.Close()
		t.Skipf("no eBPF on this kernel: %s %s", d.State, d.Reason)
	}
	o := &observer{t: t, tracker: tracker, logs: hook,
		known: map[message.Key]message.Listener{}, seen: map[message.Key]time.Duration{},
		removed: map[message.Key]time.Duration{}, history: map[message.Key][]message.Listener{},
		changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { tracker.Run(ctx) })
	w := tracker.Watch()
	running.Go(func() { o.follow(ctx, w) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	o.wait("the snapshot", func() bool { return len(o.batches) > 0 })
	return o
}

func (o *observer) follow(ctx context.Context, w *Watch) {
	for {
		l, err := w.Next(ctx)
		if err != nil {
			return
		}
		now := monotonic()
		o.mu.Lock()
		o.batches = append(o.batches, l)
		for _, k := range l.Remove {
			delete(o.known, k)
			o.removed[k] = now
		}
		for _, a := range l.Add {
			if _, ok := o.known[a.Key]; !ok {
				o.seen[a.Key] = now
			}
			o.known[a.Key] = a
			o.history[a.Key] = append(o.history[a.Key], a)
		}
		close(o.changed)
		o.changed = make(chan struct{})
		o.mu.Unlock()
	}
}

// wait waits until a condition on the observer's state holds.
func (o *observer) wait(what string, condition func() bool) {
	o.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		o.mu.Lock()
		ok, changed := condition(), o.changed
		o.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(o.known) > 20 {
				o.t.Fatalf("%s: not within %v; %d listeners are known", what, patience, len(o.known))
			}
			o.t.Fatalf("%s: not within %v; known: %v", what, patience, o.known)
		}
	}
}

// has waits until a key is known, and gives its listener.
func (o *observer) has(k message.Key) (l message.Listener) {
	o.t.Helper()
	o.wait(k.String()+" is known", func() (ok bool) {
		l, ok = o.known[k]
		return ok
	})
	return l
}

// lacks waits until a key is not known.
func (o *observer) lacks(k message.Key) {
	o.t.Helper()
	o.wait(k.String()+" is gone", func() bool {
		_, ok := o.known[k]
		return !ok
	})
}

// never fails when a key was ever reported. It is only worth something after
// sync.
func (o *observer) never(k message.Key) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.history[k]; len(h) > 0 {
		o.t.Errorf("%v was reported: %v", k, h)
	}
}

// ownedBy waits until a key is known, and checks that its first report names
// the process.
func (o *observer) ownedBy(k message.Key, p *program) {
	o.t.Helper()
	o.has(k)
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.history[k][0]; l.Owner.PID != p.pid() || l.Owner.Process != p.name() || l.Ephemeral {
		o.t.Errorf("%v: first reported as %+v, want process %d (%s)", k, l, p.pid(), p.name())
	}
}

func tcpKey(s string) message.Key { return key(message.TCP, s) }
func udpKey(s string) message.Key { return key(message.UDP, s) }

func key(p message.Protocol, s string) message.Key {
	a := netip.MustParseAddrPort(s)
	return message.Key{Protocol: p, Address: a.Addr(), Port: a.Port()}
}

func dual(k message.Key) message.Key {
	k.DualStack = true
	return k
}
