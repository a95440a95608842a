package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/guestside/isolation"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/unixserver"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const patience = 30 * time.Second

// host notes what an agent tells.
type host struct {
	said chan message.Message
	up   chan *link.Session
}

func (h *host) Up(s *link.Session)                         { h.up <- s }
func (h *host) Message(_ *link.Session, m message.Message) { h.said <- m }
func (h *host) Stream(s *link.Stream)                      { s.Refuse(wire.CodeDenied) }
func (h *host) Datagrams(f *link.DatagramFlow)             { f.Refuse(wire.CodeDenied) }
func (h *host) Down(*link.Session, error)                  {}

// TestIsolationFirst holds G2: the first that a session tells is about the agent,
// evidence of isolation with it, and only then what listens. Evidence that
// appears and goes is told again.
func TestIsolationFirst(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	dir := t.TempDir()
	key, err := linkkey.LoadOrCreate(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // something to tell
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	log := logrus.New()
	log.SetOutput(io.Discard)
	engine := startEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	socket := filepath.Join(dir, "agent")
	running.Go(func() {
		config := Config{
			Listen:    "unix://" + socket,
			KeyFile:   filepath.Join(dir, "key"),
			Detect:    DetectPoll,
			Isolation: isolation.Config{EngineSockets: []string{engine.socket}},
			Logger:    log,
		}
		if err := Run(ctx, config); err != nil {
			t.Error(err)
		}
	})
	// The first session waits for engines, the later ones do not.
	for session := range 3 {
		h := &host{said: make(chan message.Message, 1024), up: make(chan *link.Session, 1)}
		ctx, hangUp := context.WithCancel(ctx)
		connector := link.Connector{
			Config: link.Config{Key: key[:], Handler: h, Log: log},
			Dial:   func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) },
			Conns:  1,
		}
		var connecting sync.WaitGroup
		connecting.Go(func() { _ = connector.Run(ctx) })
		wait.For(t, patience, "a session", h.up)
		first := wait.For(t, patience, "the first message", h.said)
		if first.Agent == nil || first.Agent.Isolation == nil {
			t.Errorf("session %d: the first message is %+v", session, first)
		}
		for wait.For(t, patience, "listeners", h.said).Listeners == nil {
		}
		if session == 2 {
			engine.evidenceIsTold(t, h)
		}
		hangUp()
		connecting.Wait()
	}
}

// engine is one whose default runtime changes.
type engine struct {
	socket string
	events chan struct{} // one is taken for each event

	mu      sync.Mutex
	runtime string
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{events: make(chan struct{}), runtime: "runc"}
	mux := http.NewServeMux()
	mux.HandleFunc("/info", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		fmt.Fprintf(w, `{"DefaultRuntime":%q}`, e.runtime)
	})
	mux.HandleFunc("/containers/json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		for {
			w.(http.Flusher).Flush()
			select {
			case e.events <- struct{}{}:
				fmt.Fprintln(w, `{"Type":"daemon","Action":"reload"}`)
			case <-r.Context().Done():
				return
			}
		}
	})
	e.socket = unixserver.StartHTTP(t, mux)
	return e
}

// reload changes the default runtime, and has the engine tell so.
func (e *engine) reload(t *testing.T, runtime string) {
	t.Helper()
	e.mu.Lock()
	e.runtime = runtime
	e.mu.Unlock()
	wait.For(t, patience, "the stream of events", e.events)
}

// evidenceIsTold has the engine use sysbox, and then not, and waits for the host
// to hear of both.
func (e *engine) evidenceIsTold(t *testing.T, h *host) {
	t.Helper()
	want := message.IsolationFinding{
		Kind:   message.IsolationDefaultRuntime,
		Detail: "sysbox-runc, engine at " + e.socket,
	}
	told := func(is bool) {
		t.Helper()
		for {
			m := wait.For(t, patience, "evidence", h.said)
			if m.Agent != nil && slices.Contains(m.Agent.Isolation.Findings, want) == is {
				return
			}
		}
	}
	e.reload(t, "sysbox-runc")
	told(true)
	e.reload(t, "runc")
	told(false)
}
