package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// fake is a Backend whose ports the test sets.
type fake struct {
	mu      sync.Mutex
	status  Status
	reached []ReachedPort
	ports   []Port
	changed chan struct{}
	enabled bool
	refuse  bool
	values  map[string]string // set by Set
}

func newFake() *fake {
	return &fake{
		status:  Status{Version: "1.2.3", PID: os.Getpid(), HostNetworking: On, Isolation: Unknown},
		changed: make(chan struct{}),
		values:  map[string]string{"exposure": "mirror"},
	}
}

func (f *fake) Settings() Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Settings{Path: "/home/settings.yaml"}
	for k, v := range f.values {
		s.Values = append(s.Values, Setting{Key: k, Value: v, Origin: "file"})
	}
	return s
}

func (f *fake) Set(_ context.Context, key, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.refuse:
		return fmt.Errorf("%w: %s is locked", ErrRefused, key)
	case key != "exposure":
		return fmt.Errorf("%w: unknown key %q", ErrInvalid, key)
	}
	f.values[key] = value
	return nil
}

func (f *fake) Unset(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.values[key]; !ok {
		return fmt.Errorf("%w: unknown key %q", ErrInvalid, key)
	}
	delete(f.values, key)
	return nil
}

func (f *fake) Status() Status { return f.status }

func (f *fake) Reached() []ReachedPort { return f.reached }

func (f *fake) Ports() []Port {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Port(nil), f.ports...)
}

func (f *fake) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fake) set(ports ...Port) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports = ports
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) SetEnabled(_ context.Context, enabled bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse {
		return fmt.Errorf("enable: %w: isolation is on", ErrRefused)
	}
	f.enabled = enabled
	return nil
}

func (f *fake) Key(link string) (string, error) {
	if link != "a/b" {
		return "", fmt.Errorf("key of %q: %w", link, ErrNotFound)
	}
	return "00ff", nil
}

func (f *fake) Sandbox(link string) (Sandbox, error) {
	return Sandbox{Link: "link=" + link, NetNS: "/run/netns/x"}, nil
}

func quiet() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// serve runs a server on a home of its own until the test ends.
func serve(t *testing.T, b Backend) (home string, client *Client) {
	t.Helper()
	home = t.TempDir()
	server, err := Listen(home, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, server.Close(), server.Close()); err != nil {
			t.Errorf("serve and close: %v", err)
		}
	})
	return home, NewClient(home)
}

func port(number uint16, state string) Port {
	a := netip.MustParseAddr("0.0.0.0")
	return Port{
		Protocol: "tcp", Guest: Address{Address: a, Port: number}, State: state, Link: "default",
		Host:  []HostPort{{Address: a, Port: number, State: state}},
		Owner: Owner{Container: "web", Image: "nginx", Process: "nginx", PID: 1234},
		Since: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func TestRequests(t *testing.T) {
	ctx := t.Context()
	b := newFake()
	_, c := serve(t, b)

	status, err := c.Status(ctx)
	if err != nil || status.Version != "1.2.3" || status.Links == nil || status.Evidence == nil || status.Warnings == nil {
		t.Errorf("status: %+v, %v", status, err)
	}
	if v, err := c.Version(ctx); err != nil || v != (Version{Version: "1.2.3", PID: os.Getpid()}) {
		t.Errorf("version: %+v, %v", v, err)
	}
	if reached, err := c.Reached(ctx); err != nil || reached == nil || len(reached) != 0 {
		t.Errorf("reached: %#v, %v, want an empty list", reached, err)
	}
	b.reached = []ReachedPort{{Link: "default", Protocol: "udp", Port: 53, State: "open", Flows: 1}}
	if reached, err := c.Reached(ctx); err != nil || !slices.Equal(reached, b.reached) {
		t.Errorf("reached: %#v, %v", reached, err)
	}
	if ports, err := c.Ports(ctx); err != nil || ports == nil || len(ports) != 0 {
		t.Errorf("no ports: %#v, %v", ports, err)
	}
	b.set(port(80, PortOpen))
	if ports, err := c.Ports(ctx); err != nil || len(ports) != 1 || !same(ports[0], port(80, PortOpen)) {
		t.Errorf("one port: %+v, %v", ports, err)
	}
	if err := c.SetEnabled(ctx, true); err != nil || !b.enabled {
		t.Errorf("enable: %v", err)
	}
	if key, err := c.Key(ctx, "a/b"); err != nil || key != "00ff" {
		t.Errorf("key: %q, %v", key, err)
	}
	if _, err := c.Key(ctx, "other"); !errors.Is(err, ErrNotFound) || err.Error() != `key of "other": not found` {
		t.Errorf("unknown key: %v", err)
	}
	if s, err := c.Sandbox(ctx, "x y&z"); err != nil || s.Link != "link=x y&z" {
		t.Errorf("sandbox: %+v, %v", s, err)
	}
	b.refuse = true
	if err := c.SetEnabled(ctx, true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "isolation is on") {
		t.Errorf("refused: %v", err)
	}
	if _, err := get[string](ctx, c, "/v1/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown path: %v", err)
	}
}

// Settings are asked for and changed by key; what is wrong and what is forbidden
// arrive as such.
func TestSettings(t *testing.T) {
	ctx := t.Context()
	b := newFake()
	_, c := serve(t, b)
	s, err := c.Settings(ctx)
	if err != nil || s.Path != "/home/settings.yaml" || s.Problems == nil || len(s.Values) != 1 || s.Values[0].Value != "mirror" {
		t.Errorf("settings: %+v, %v", s, err)
	}
	const long = "[{name: \"a b\", url: \"exec:x/y?z&ü\"}]"
	if err := c.Set(ctx, "exposure", long); err != nil || b.values["exposure"] != long {
		t.Errorf("set: %q, %v", b.values["exposure"], err)
	}
	for _, key := range []string{"exposed", "a/b", "ü ?&#", "%2e"} {
		if err := c.Set(ctx, key, "x"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
			t.Errorf("set %q: %v", key, err)
		}
		if err := c.Unset(ctx, key); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
			t.Errorf("unset %q: %v", key, err)
		}
	}
	if err := c.Set(ctx, "exposure", strings.Repeat("x", maxValue)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a value without end: %v", err)
	}
	if err := c.put(ctx, "/v1/settings/exposure", 7); !errors.Is(err, ErrInvalid) {
		t.Errorf("a number: %v", err)
	}
	if err := c.put(ctx, "/v1/enabled", "yes"); !errors.Is(err, ErrInvalid) {
		t.Errorf("enabled: yes: %v", err)
	}
	if err := c.Unset(ctx, "exposure"); err != nil || len(b.values) != 0 {
		t.Errorf("unset: %v", err)
	}
	b.refuse = true
	if err := c.Set(ctx, "exposure", "mirror"); !errors.Is(err, ErrRefused) {
		t.Errorf("refused: %v", err)
	}
}

// The JSON of ports is what scripts read: its names are a contract.
func TestPortJSON(t *testing.T) {
	p := port(8000, PortOpen)
	p.Flows = 3
	got, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"protocol":"tcp","guest":{"address":"0.0.0.0","port":8000},` +
		`"host":[{"address":"0.0.0.0","port":8000,"state":"open","reason":""}],` +
		`"state":"open","reason":"","owner":{"container":"web","image":"nginx","process":"nginx","pid":1234},` +
		`"link":"default","flows":3,"bytes_in":0,"bytes_out":0,"since":"2025-01-02T03:04:05Z"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNoDaemon(t *testing.T) {
	home := t.TempDir()
	if _, err := NewClient(home).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no home: %v", err)
	}
	if _, err := NewClient(filepath.Join(home, strings.Repeat("long", 50))).Status(t.Context()); !errors.Is(err, ErrSocketPath) {
		t.Errorf("long home: %v", err)
	}
}

func TestWatch(t *testing.T) {
	b := newFake()
	b.set(port(80, PortOpen))
	_, c := serve(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	events := make(chan Event)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	want := func(kind string, number uint16, state string) {
		t.Helper()
		select {
		case e := <-events:
			if e.Type != kind || e.Port.Guest.Port != number || e.Port.State != state {
				t.Fatalf("got %s of %d %s, want %s of %d %s", e.Type, e.Port.Guest.Port, e.Port.State, kind, number, state)
			}
		case err := <-ended:
			t.Fatalf("watch ended with %v before %s of %d", err, kind, number)
		}
	}
	want(Appear, 80, PortOpen)
	want(Ready, 0, "")
	b.set(port(80, PortOpen), port(81, PortConflict))
	want(Appear, 81, PortConflict)
	// Counters alone are no event.
	busy := port(80, PortOpen)
	busy.Flows, busy.BytesIn = 7, 1<<20
	b.set(busy, port(81, PortOpen))
	want(Change, 81, PortOpen)
	b.set(port(82, PortOpen))
	want(Gone, 80, PortOpen)
	want(Gone, 81, PortOpen)
	want(Appear, 82, PortOpen)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
}

// A watch does not keep a daemon from stopping, and ends with it.
func TestWatchEndsWithDaemon(t *testing.T) {
	server, err := Listen(t.TempDir(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, newFake()) }()
	err = NewClient(filepath.Dir(server.lock.Name())).Watch(t.Context(), func(e Event) error {
		if e.Type == Ready {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("watch ended with %v", err)
	}
	if err := errors.Join(<-done, server.Close()); err != nil {
		t.Error(err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: appear\ndata: {\"type\":\"appear\",\"port\":{\"protocol\":\"tcp\"}}\n\n")
	f.Add("data: \n\ndata: null\n")
	f.Add(": comment\ndata: {\"port\":{\"guest\":{\"address\":\"::ffff:1.2.3.4%x\",\"port\":65536}}}")
	f.Fuzz(func(t *testing.T, stream string) {
		if readEvents(strings.NewReader(stream), func(Event) error { return nil }) == nil {
			t.Error("a stream that ended is an error")
		}
	})
}
