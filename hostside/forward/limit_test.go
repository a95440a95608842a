package forward

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestLimit: a guest that floods is capped, with one message; UDP clients do not
// crowd out listeners (A6, H2).
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxListeners = 1000 })
		for port := range 5000 {
			l := listener(fmt.Sprintf("udp 0.0.0.0:%d", 20000+port))
			l.Ephemeral = true
			r.ListenersChanged("a", message.Listeners{Add: []message.Listener{l}})
		}
		r.log.Reset()
		for port := range 100000 / 50 {
			var m message.Listeners
			for i := range 50 {
				m.Add = append(m.Add, listener(fmt.Sprintf("tcp 127.0.%d.1:%d", i, 20000+port)))
			}
			r.ListenersChanged("a", m)
		}
		time.Sleep(time.Second)
		if n := len(r.Forwards()); n != 1000 || len(r.host.routes()) != 1000 {
			t.Errorf("%d listed, %d open, want 1000", n, len(r.host.routes()))
		}
		// 1000 in one line; the limit was told with the UDP clients.
		equal(t, "log", r.lines(logrus.DebugLevel), []string{"forward open"})
	})
}

// TestSetMaxListeners: a lower limit closes nothing, a higher one counts from the
// next report on, and each is told of once.
func TestSetMaxListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxListeners = 2 })
		count := func(want int) {
			t.Helper()
			time.Sleep(time.Second)
			if n := len(r.Forwards()); n != want || len(r.host.routes()) != want {
				t.Errorf("%d listed, %d open, want %d", n, len(r.host.routes()), want)
			}
		}
		r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2", "tcp 0.0.0.0:3")
		count(2)
		r.SetMaxListeners(1)
		r.add("a", "tcp 0.0.0.0:4", "tcp 0.0.0.0:5")
		count(2)
		r.remove("a", "tcp 0.0.0.0:1")
		r.add("a", "tcp 0.0.0.0:4")
		count(1)
		r.SetMaxListeners(3)
		r.add("a", "tcp 0.0.0.0:3", "tcp 0.0.0.0:4", "tcp 0.0.0.0:5")
		count(3)
		r.SetMaxListeners(0)
		r.add("a", "tcp 0.0.0.0:6")
		count(4)
		equal(t, "log", r.lines(logrus.WarnLevel), []string{
			"the guest has more than 2 listeners; those beyond are not forwarded",
			"the guest has more than 1 listeners; those beyond are not forwarded",
			"the guest has more than 3 listeners; those beyond are not forwarded"})
	})
}

// TestSocketLimit: what is beyond the descriptors says so, and opens when there
// is room.
func TestSocketLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxSockets = 1 })
		r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		time.Sleep(time.Second)
		list := r.Forwards()
		equal(t, "listed", states(list), []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]", "a tcp 0.0.0.0:2 failed [0.0.0.0 failed]"})
		if !strings.HasPrefix(list[1].Reason, "too many open sockets: the limit is 1 ") {
			t.Errorf("reason %q", list[1].Reason)
		}
		r.remove("a", "tcp 0.0.0.0:1")
		time.Sleep(time.Second)
		equal(t, "open", r.host.routes(), []string{"tcp 0.0.0.0:2 -> a 127.0.0.1:2"})
	})
}

// TestPrompt: where the first wildcard bind raises a firewall's question, it is
// announced, once.
func TestPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.prompts = true })
		r.add("a", "tcp 127.0.0.1:1")
		if lines := r.lines(logrus.DebugLevel); len(lines) != 0 {
			t.Errorf("log: %v", lines)
		}
		r.add("a", "tcp 0.0.0.0:2", "tcp 0.0.0.0:3")
		if lines := r.lines(logrus.DebugLevel); len(lines) != 1 || !strings.Contains(lines[0], "firewall") {
			t.Errorf("log: %v", lines)
		}
	})
}

// TestManyConflicts: thousands of them are retried within 2 s, each about once.
func TestManyConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		r := newRig(t, nil)
		var m message.Listeners
		for port := range n {
			s := fmt.Sprintf("tcp 0.0.0.0:%d", 20000+port)
			r.host.foreign[s] = true
			m.Add = append(m.Add, listener(s))
		}
		// The pretended host is slow to compare with each: look up instead.
		r.Engine.cfg.open = func(s slot, rt *route) (hostSocket, error) {
			r.host.mu.Lock()
			taken := r.host.foreign[s.String()]
			r.host.opens++
			r.host.mu.Unlock()
			if taken {
				return nil, &bind.Error{Kind: bind.ErrInUse, At: s.at}
			}
			return &fakeSocket{host: r.host, slot: s, route: rt}, nil
		}
		r.ListenersChanged("a", m)
		time.Sleep(4 * time.Second)
		tries := 0
		r.host.set(func() { tries -= r.host.opens })
		time.Sleep(15 * time.Second)
		r.host.set(func() { tries += r.host.opens })
		if tries > 11*n {
			t.Errorf("%d tries in 15 s for %d conflicts", tries, n)
		}
		r.host.set(func() { clear(r.host.foreign) })
		time.Sleep(2 * time.Second)
		for _, f := range r.Forwards() {
			if f.State != Open {
				t.Fatalf("%v is %s after 2 s", f.Key(), f.State)
			}
		}
		r.host.set(func() {
			if r.host.finds > 2 {
				t.Errorf("%d scans for owners", r.host.finds)
			}
		})
		if lines := r.lines(logrus.InfoLevel); len(lines) > 20 {
			t.Errorf("%d lines in the log:\n%s", len(lines), strings.Join(lines, "\n"))
		}
	})
}
