package forward

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func twin(c *Config) { c.Policy.LocalhostTwin = true }

func local(c *Config) { c.Policy.Exposure = Loopback }

// scene is played on a pretended host: what is open and what is listed at its end.
type scene struct {
	name   string
	config func(*Config)
	play   func(r *rig)
	open   []string
	listed []string
}

func TestSettle(t *testing.T) {
	playAll(t, []scene{
		{name: "scope is mirrored, families are kept (A1)",
			play: func(r *rig) {
				r.add("a", "tcp 127.0.0.1:1", "tcp 0.0.0.0:2", "tcp [::1]:3", "tcp [::]:4", "tcp [::]:5 dual", "udp [::]:6 dual", "tcp 127.0.0.2:7")
			},
			open: []string{"tcp 0.0.0.0:2 -> a 127.0.0.1:2", "tcp 0.0.0.0:5 -> a 127.0.0.1:5", "tcp 127.0.0.1:1 -> a 127.0.0.1:1",
				"tcp 127.0.0.2:7 -> a 127.0.0.2:7", "tcp [::1]:3 -> a [::1]:3", "tcp [::]:4 -> a [::1]:4", "tcp [::]:5 -> a [::1]:5",
				"udp 0.0.0.0:6 -> a 127.0.0.1:6", "udp [::]:6 -> a [::1]:6"},
			listed: []string{"a tcp 127.0.0.1:1 open [127.0.0.1 open]", "a tcp 0.0.0.0:2 open [0.0.0.0 open]", "a tcp [::1]:3 open [::1 open]",
				"a tcp [::]:4 open [:: open]", "a tcp [::]:5 (dual-stack) open [0.0.0.0 open :: open]",
				"a udp [::]:6 (dual-stack) open [0.0.0.0 open :: open]", "a tcp 127.0.0.2:7 open [127.0.0.2 open]"}},
		{name: "exposure loopback", config: local,
			play: func(r *rig) { r.add("a", "tcp 0.0.0.0:1", "tcp [::]:2 dual", "tcp 10.0.0.5:3") },
			open: []string{"tcp 127.0.0.1:1 -> a 127.0.0.1:1", "tcp 127.0.0.1:2 -> a 127.0.0.1:2", "tcp [::1]:2 -> a [::1]:2"},
			listed: []string{"a tcp 0.0.0.0:1 open [127.0.0.1 open]", "a tcp [::]:2 (dual-stack) open [127.0.0.1 open ::1 open]",
				"a tcp 10.0.0.5:3 ignored []"}},
		{name: "an address that only the VM has",
			play: func(r *rig) {
				r.host.broken["tcp 10.0.0.5:1"] = bind.ErrNoAddress
				r.add("a", "tcp 10.0.0.5:1")
			},
			open: []string{}, listed: []string{"a tcp 10.0.0.5:1 ignored [10.0.0.5 ignored]"}},
		{name: "a host without IPv6 serves IPv4 (A8)",
			play: func(r *rig) {
				r.host.broken["tcp [::]:1"] = bind.ErrNoAddress
				r.add("a", "tcp [::]:1 dual")
			},
			open:   []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp [::]:1 (dual-stack) open [0.0.0.0 open :: ignored]"}},
		{name: "the scope narrows (A9)",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1")
				r.ListenersChanged("a", message.Listeners{Add: []message.Listener{listener("tcp 127.0.0.1:1")},
					Remove: []message.Key{listener("tcp 0.0.0.0:1").Key}})
			},
			open: []string{"tcp 127.0.0.1:1 -> a 127.0.0.1:1"}, listed: []string{"a tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "a wildcard covers the specific address of its link",
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:1"); r.add("a", "tcp 0.0.0.0:1") },
			open:   []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]", "a tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "and leaves it when it goes (C2)",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1", "tcp 127.0.0.1:1")
				r.remove("a", "tcp 0.0.0.0:1")
			},
			open: []string{"tcp 127.0.0.1:1 -> a 127.0.0.1:1"}, listed: []string{"a tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "a wildcard that fails leaves the specific open",
			play: func(r *rig) {
				r.host.foreign["tcp 10.0.0.9:1"] = true
				r.add("a", "tcp 127.0.0.1:1")
				r.add("a", "tcp 0.0.0.0:1")
			},
			open:   []string{"tcp 127.0.0.1:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 conflict [0.0.0.0 conflict]", "a tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "conflicts are per protocol and family (B3)",
			play: func(r *rig) {
				r.host.foreign["tcp 0.0.0.0:1"] = true
				r.add("a", "tcp [::]:1 dual", "udp 0.0.0.0:1")
			},
			open:   []string{"tcp [::]:1 -> a [::1]:1", "udp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp [::]:1 (dual-stack) conflict [0.0.0.0 conflict :: open]", "a udp 0.0.0.0:1 open [0.0.0.0 open]"}},
		{name: "the first link keeps the port (B5)",
			play:   func(r *rig) { r.add("a", "tcp 0.0.0.0:1"); r.add("b", "tcp 127.0.0.1:1") },
			open:   []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]", "b tcp 127.0.0.1:1 conflict [127.0.0.1 conflict]"}},
		{name: "the second gets it when the first lets go (B5)",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1")
				r.add("b", "tcp 127.0.0.1:1")
				r.remove("a", "tcp 0.0.0.0:1")
			},
			open: []string{"tcp 127.0.0.1:1 -> b 127.0.0.1:1"}, listed: []string{"b tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "or when its link is down (B5)",
			play: func(r *rig) {
				r.add("a", "udp 0.0.0.0:1", "tcp 0.0.0.0:1")
				r.add("b", "udp 0.0.0.0:1", "tcp 0.0.0.0:1")
				r.LinkDown("a")
			},
			open:   []string{"tcp 0.0.0.0:1 -> b 127.0.0.1:1", "udp 0.0.0.0:1 -> b 127.0.0.1:1"},
			listed: []string{"b tcp 0.0.0.0:1 open [0.0.0.0 open]", "b udp 0.0.0.0:1 open [0.0.0.0 open]"}},
		{name: "a link that holds the port is not pushed out by an older wish",
			play: func(r *rig) {
				r.host.foreign["tcp 10.0.0.9:1"] = true
				r.add("a", "tcp 0.0.0.0:1") // conflict
				r.add("b", "tcp 127.0.0.1:1")
				r.host.set(func() { delete(r.host.foreign, "tcp 10.0.0.9:1") })
			},
			open:   []string{"tcp 127.0.0.1:1 -> b 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 conflict [0.0.0.0 conflict]", "b tcp 127.0.0.1:1 open [127.0.0.1 open]"}},
		{name: "the twin opens ::1", config: twin,
			play: func(r *rig) { r.add("a", "tcp 0.0.0.0:1", "tcp 127.0.0.1:2", "tcp 127.0.0.2:3") },
			open: []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1", "tcp 127.0.0.1:2 -> a 127.0.0.1:2", "tcp 127.0.0.2:3 -> a 127.0.0.2:3",
				"tcp [::1]:1 -> a 127.0.0.1:1", "tcp [::1]:2 -> a 127.0.0.1:2"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open ::1 open alias]", "a tcp 127.0.0.1:2 open [127.0.0.1 open ::1 open alias]",
				"a tcp 127.0.0.2:3 open [127.0.0.2 open]"}},
		{name: "the twin is never a conflict", config: twin,
			play: func(r *rig) {
				r.host.foreign["tcp [::1]:1"] = true
				r.add("a", "tcp 0.0.0.0:1")
			},
			open:   []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open ::1 ignored alias]"}},
		{name: "the twin gives way to a listener, of any link", config: twin,
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1", "udp 0.0.0.0:1")
				r.add("a", "tcp [::]:1")
				r.add("b", "udp [::1]:1")
			},
			open: []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1", "tcp [::]:1 -> a [::1]:1",
				"udp 0.0.0.0:1 -> a 127.0.0.1:1", "udp [::1]:1 -> b [::1]:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open ::1 open alias]", "a tcp [::]:1 open [:: open]",
				"a udp 0.0.0.0:1 open [0.0.0.0 open ::1 ignored alias]", "b udp [::1]:1 open [::1 open]"}},
		{name: "a policy applies at once",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1", "tcp 127.0.0.1:2")
				r.set(Policy{Exposure: Loopback, DenyPorts: ports("2")})
			},
			open:   []string{"tcp 127.0.0.1:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [127.0.0.1 open]", "a tcp 127.0.0.1:2 denied []"}},
		{name: "off (C4)",
			play: func(r *rig) { r.add("a", "tcp 0.0.0.0:1", "udp 0.0.0.0:1"); r.Enable(false) },
			open: []string{}, listed: []string{"a tcp 0.0.0.0:1 denied []", "a udp 0.0.0.0:1 denied []"}},
		{name: "off and on",
			play: func(r *rig) {
				r.Enable(false)
				r.add("a", "tcp 0.0.0.0:1")
				r.Enable(true)
			},
			open: []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"}, listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]"}},
		{name: "a snapshot replaces, over several messages",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
				r.ListenersChanged("a", message.Listeners{Reset: true, More: true, Add: []message.Listener{listener("tcp 0.0.0.0:2")}})
				r.ListenersChanged("a", message.Listeners{Add: []message.Listener{listener("tcp 0.0.0.0:3")}})
			},
			open:   []string{"tcp 0.0.0.0:2 -> a 127.0.0.1:2", "tcp 0.0.0.0:3 -> a 127.0.0.1:3"},
			listed: []string{"a tcp 0.0.0.0:2 open [0.0.0.0 open]", "a tcp 0.0.0.0:3 open [0.0.0.0 open]"}},
		{name: "a new carrier takes over",
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:1", "udp 0.0.0.0:1")
				r.SetLink("a", &fakeCarrier{name: "a2"})
			},
			open:   []string{"tcp 0.0.0.0:1 -> a2 127.0.0.1:1", "udp 0.0.0.0:1 -> a2 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]", "a udp 0.0.0.0:1 open [0.0.0.0 open]"}},
		{name: "reports of an unknown link are void",
			play: func(r *rig) { r.add("c", "tcp 0.0.0.0:1") },
			open: []string{}, listed: []string{}},
		{name: "failures are told with their error, and cure themselves",
			play: func(r *rig) {
				r.host.broken["tcp 0.0.0.0:1"] = bind.ErrDescriptors
				r.host.broken["tcp 0.0.0.0:2"] = bind.ErrDescriptors
				r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
				r.host.set(func() { delete(r.host.broken, "tcp 0.0.0.0:1") })
			},
			open:   []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"},
			listed: []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]", "a tcp 0.0.0.0:2 failed [0.0.0.0 failed]"}},
	})
}

func playAll(t *testing.T, scenes []scene) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.config)
				c.play(r)
				time.Sleep(2 * time.Second) // of the test's own clock
				equal(t, "open", r.host.routes(), c.open)
				equal(t, "listed", states(r.Forwards()), c.listed)
				r.LinkDown("a")
				r.LinkDown("b")
				if open, left := r.host.routes(), r.left(); len(open) > 0 || left != [3]int{} {
					t.Errorf("without links there are still %v, groups, retries and sockets %v", open, left)
				}
			})
		})
	}
}

// TestConflictToldOnce: one report per conflict, with its owner; it resolves by
// itself within 2 s; a later conflict is another one (B1, B2).
func TestConflictToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		w := r.Watch()
		r.host.foreign["tcp 0.0.0.0:1"] = true
		r.host.foreign["tcp [::]:1"] = true
		for range 2 {
			r.host.set(func() { r.host.foreign["tcp 0.0.0.0:1"] = true })
			r.add("a", "tcp [::]:1 dual")
			time.Sleep(time.Minute)
			r.host.set(func() { clear(r.host.foreign) })
			time.Sleep(2 * time.Second)
			r.remove("a", "tcp [::]:1 dual")
			time.Sleep(time.Second)
		}
		scene := []string{"port conflict: tcp 0.0.0.0:1 is in use by nginx (pid 7)", "conflict resolved, forward open", "forward closed"}
		equal(t, "log", r.lines(logrus.InfoLevel), slices.Concat(scene, scene))
		r.host.set(func() {
			if r.host.finds != 2 {
				t.Errorf("%d scans for owners, want one per conflict", r.host.finds)
			}
		})
		changes, err := w.Next(context.Background())
		if err != nil || len(changes) != 1 || !changes[0].Gone {
			t.Errorf("the watcher's latest news is %+v, %v", changes, err)
		}
	})
}

// TestYoung: a TCP forward opens at once, and is mentioned after 50 ms (A5).
func TestYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		w := r.Watch()
		r.host.foreign["tcp 0.0.0.0:2"] = true
		r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		equal(t, "open", r.host.routes(), []string{"tcp 0.0.0.0:1 -> a 127.0.0.1:1"})
		time.Sleep(49 * time.Millisecond)
		equal(t, "listed", states(r.Forwards()), []string{})
		equal(t, "asked for", states(r.ForwardsOf(1)), []string{"a tcp 0.0.0.0:1 open [0.0.0.0 open]"})
		r.remove("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		time.Sleep(time.Second)
		equal(t, "log", r.lines(logrus.DebugLevel), []string{})

		r.add("a", "udp 0.0.0.0:3") // has lived its 50 ms in the guest
		time.Sleep(reportEvery)
		equal(t, "listed", states(r.Forwards()), []string{"a udp 0.0.0.0:3 open [0.0.0.0 open]"})
		changes, err := w.Next(context.Background())
		if err != nil || len(changes) != 1 || changes[0].Forward.Protocol != message.UDP {
			t.Errorf("news: %+v, %v; want that of the UDP forward alone", changes, err)
		}
	})
}

// TestWatch: what is there first, then changes; a listener that comes back is
// not left behind as gone; the end is told.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.add("a", "tcp 0.0.0.0:1")
		time.Sleep(time.Second)
		w := r.Watch()
		next := func() []string {
			changes, err := w.Next(context.Background())
			if err != nil {
				return []string{err.Error()}
			}
			var out []string
			for _, c := range changes {
				out = append(out, fmt.Sprint(c.Forward.Key(), " ", c.Forward.State, " gone ", c.Gone))
			}
			slices.Sort(out)
			return out
		}
		equal(t, "first", next(), []string{"tcp 0.0.0.0:1 open gone false"})
		r.ListenersChanged("a", message.Listeners{Add: []message.Listener{listener("tcp 0.0.0.0:1"), listener("tcp 0.0.0.0:2")},
			Remove: []message.Key{listener("tcp 0.0.0.0:1").Key}})
		time.Sleep(time.Second)
		equal(t, "then", next(), []string{"tcp 0.0.0.0:1 open gone false", "tcp 0.0.0.0:2 open gone false"})
		r.Enable(false)
		equal(t, "off", next(), []string{"tcp 0.0.0.0:1 denied gone false", "tcp 0.0.0.0:2 denied gone false"})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if changes, err := w.Next(ctx); err != context.DeadlineExceeded {
			t.Errorf("no news: %v, %v", changes, err)
		}
		r.Close()
		equal(t, "end", next(), []string{ErrWatchEnded.Error()})
		equal(t, "late", states(r.Forwards()), []string{})
	})
}

// TestLingering: where accepted connections hold the port, its socket stays for
// them, resets newcomers, and serves again when the listener returns (C3, C5).
func TestLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.lingers = true })
		r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		busy := r.stats("tcp 0.0.0.0:1")
		busy.Flows.Add(1)
		r.remove("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		equal(t, "busy", r.host.routes(), []string{"tcp 0.0.0.0:1 -> reset"})
		r.add("b", "tcp 0.0.0.0:1")
		equal(t, "back", r.host.routes(), []string{"tcp 0.0.0.0:1 -> b 127.0.0.1:1"})
		r.remove("b", "tcp 0.0.0.0:1")
		equal(t, "still busy", r.host.routes(), []string{"tcp 0.0.0.0:1 -> reset"})
		busy.Flows.Add(-1)
		time.Sleep(time.Second)
		equal(t, "over", r.host.routes(), []string{})
		if left := r.left(); left != [3]int{} {
			t.Errorf("groups, retries and sockets are left: %v", left)
		}
	})
}

// TestPolicyEndsLingering: what the policy closes does not linger.
func TestPolicyEndsLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.lingers = true })
		r.add("a", "tcp 0.0.0.0:1", "tcp 0.0.0.0:2")
		for _, port := range []string{"1", "2"} {
			r.stats("tcp 0.0.0.0:" + port).Flows.Add(1)
		}
		denied := r.stats("tcp 0.0.0.0:1")
		r.SetLink("a", &fakeCarrier{name: "a", cut: func() { denied.Flows.Add(-1) }})
		r.set(Policy{DenyPorts: ports("1")})
		equal(t, "open", r.host.routes(), []string{"tcp 0.0.0.0:2 -> a 127.0.0.1:2"})
		for _, f := range r.ForwardsOf(2) {
			if f.Flows != 1 {
				t.Errorf("port 2: %d flows", f.Flows)
			}
		}
	})
}
