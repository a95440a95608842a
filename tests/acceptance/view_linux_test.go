package acceptance

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// view is what vmbridge ports --watch --json tells: the ports as they are, and
// everything that happened to them.
type view struct {
	t *testing.T
	*watch
}

// watch is a running vmbridge ports --watch --json.
type watch struct {
	done chan struct{} // closed when it has ended

	mu      sync.Mutex
	ready   bool
	ports   map[string]control.Port
	history []control.Event
	changed chan struct{} // closed and replaced at every change
}

// follow starts to watch, as soon as there is a daemon.
func (b *bed) follow() {
	b.t.Helper()
	wait.Eventually(b.t, patience, "the daemon answers", func() error {
		_, err := b.status()
		return err
	})
	v := view{b.t, &watch{done: make(chan struct{}), ports: map[string]control.Port{}, changed: make(chan struct{})}}
	cmd := b.command("ports", "--watch", "--json")
	r, w := io.Pipe()
	cmd.Stdout = w
	p := b.spawn(b.host, "watch", cmd)
	go func() {
		<-p.done
		w.Close()
	}()
	go v.read(r)
	v.wait("the watch is ready", func() bool { return v.ready })
	b.view = v
}

func (v *watch) read(r io.Reader) {
	defer close(v.done)
	for lines := json.NewDecoder(r); ; {
		var e control.Event
		if lines.Decode(&e) != nil {
			return
		}
		v.mu.Lock()
		switch e.Type {
		case control.Ready:
			v.ready = true
		case control.Gone:
			delete(v.ports, portName(e.Port))
		default:
			v.ports[portName(e.Port)] = e.Port
		}
		v.history = append(v.history, e)
		close(v.changed)
		v.changed = make(chan struct{})
		v.mu.Unlock()
	}
}

// portName is like "tcp 0.0.0.0:8000".
func portName(p control.Port) string {
	return fmt.Sprintf("%s %s", p.Protocol, joinPort(p.Guest.Address, p.Guest.Port))
}

// wait waits until a condition on the view's state holds.
func (v view) wait(what string, condition func() bool) {
	v.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		v.mu.Lock()
		ok, changed := condition(), v.changed
		v.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-v.done:
			v.t.Fatalf("%s: the watch has ended", what)
		case <-deadline.C:
			v.t.Fatalf("%s: not within %v; there are\n%s", what, patience, v.watch)
		}
	}
}

// String lists the ports.
func (v *watch) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var lines []string
	for name, p := range v.ports {
		lines = append(lines, fmt.Sprintf("  %s %s %s %+v %+v", name, p.State, p.Reason, p.Host, p.Owner))
	}
	slices.Sort(lines)
	const most = 30
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("  and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n")
}

// port waits until a port is listed in a state, and gives it.
func (v view) port(name, state string) (p control.Port) {
	v.t.Helper()
	v.wait(name+" is "+state, func() bool {
		p = v.ports[name]
		return p.State == state
	})
	return p
}

// gone waits until a port is not listed.
func (v view) gone(name string) {
	v.t.Helper()
	v.wait(name+" is gone", func() bool {
		_, ok := v.ports[name]
		return !ok
	})
}

// events gives what happened to a port, in order.
func (v *watch) events(name string) []control.Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []control.Event
	for _, e := range v.history {
		if e.Type != control.Ready && portName(e.Port) == name {
			list = append(list, e)
		}
	}
	return list
}

// never fails the test when a port was ever listed.
func (v view) never(name string) {
	v.t.Helper()
	if list := v.events(name); len(list) > 0 {
		v.t.Errorf("%s was listed: %+v", name, list)
	}
}
