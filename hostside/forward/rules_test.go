package forward

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func rules(list ...Rule) func(*Config) {
	for i := range list {
		list[i].Name = fmt.Sprintf("ports.rules[%d]", i)
	}
	return func(c *Config) { c.Policy.Rules = list }
}

// TestSettleRules: rules lead ports to others, where they may meet.
func TestSettleRules(t *testing.T) {
	playAll(t, []scene{
		{name: "a rule moves a range, on all its addresses",
			config: rules(Rule{First: 80, Last: 81, HostPort: 8080}),
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:80", "tcp [::]:81 dual", "udp 0.0.0.0:81", "tcp 127.0.0.1:82") },
			open: []string{"tcp 0.0.0.0:8081 -> a 127.0.0.1:81", "tcp 127.0.0.1:8080 -> a 127.0.0.1:80", "tcp 127.0.0.1:82 -> a 127.0.0.1:82",
				"tcp [::]:8081 -> a [::1]:81", "udp 0.0.0.0:8081 -> a 127.0.0.1:81"},
			listed: []string{"a tcp 127.0.0.1:80 open [127.0.0.1:8080 open]", "a tcp [::]:81 (dual-stack) open [0.0.0.0:8081 open [::]:8081 open]",
				"a udp 0.0.0.0:81 open [0.0.0.0:8081 open]", "a tcp 127.0.0.1:82 open [127.0.0.1 open]"}},
		{name: "the twin is at the rule's port, too",
			config: func(c *Config) { twin(c); rules(Rule{First: 80, Last: 80, HostPort: 8080})(c) },
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:80", "tcp [::1]:8080") },
			open:   []string{"tcp 127.0.0.1:8080 -> a 127.0.0.1:80", "tcp [::1]:8080 -> a [::1]:8080"},
			listed: []string{"a tcp 127.0.0.1:80 open [127.0.0.1:8080 open [::1]:8080 ignored alias]", "a tcp [::1]:8080 open [::1 open]"}},
		{name: "the first link keeps a port that rules lead to (B5)",
			config: rules(Rule{First: 80, Last: 80, HostPort: 8080}),
			play:   func(r *rig) { r.add("a", "tcp 0.0.0.0:80"); r.add("b", "tcp 127.0.0.1:8080", "tcp 127.0.0.1:80") },
			open:   []string{"tcp 0.0.0.0:8080 -> a 127.0.0.1:80"},
			listed: []string{"a tcp 0.0.0.0:80 open [0.0.0.0:8080 open]", "b tcp 127.0.0.1:80 conflict [127.0.0.1:8080 conflict]",
				"b tcp 127.0.0.1:8080 conflict [127.0.0.1 conflict]"}},
		{name: "and the next of the second gets it, in order (B5)",
			config: rules(Rule{First: 80, Last: 80, HostPort: 8080}),
			play: func(r *rig) {
				r.add("a", "tcp 0.0.0.0:80")
				r.add("b", "tcp 127.0.0.1:8080", "tcp 127.0.0.1:80")
				r.LinkDown("a")
			},
			open: []string{"tcp 127.0.0.1:8080 -> b 127.0.0.1:8080"},
			listed: []string{"b tcp 127.0.0.1:80 conflict [127.0.0.1:8080 conflict]",
				"b tcp 127.0.0.1:8080 open [127.0.0.1 open]"}},
		{name: "a link's own ports conflict where rules lead them to one",
			config: rules(Rule{First: 80, Last: 80, HostPort: 8080}, Rule{First: 90, Last: 90, HostPort: 8080}),
			play: func(r *rig) {
				r.add("a", "tcp 127.0.0.1:8080")
				r.add("a", "tcp 0.0.0.0:80", "tcp 127.0.0.1:90", "udp 127.0.0.1:90")
			},
			open: []string{"tcp 127.0.0.1:8080 -> a 127.0.0.1:8080", "udp 127.0.0.1:8080 -> a 127.0.0.1:90"},
			listed: []string{"a tcp 0.0.0.0:80 conflict [0.0.0.0:8080 conflict]", "a tcp 127.0.0.1:90 conflict [127.0.0.1:8080 conflict]",
				"a udp 127.0.0.1:90 open [127.0.0.1:8080 open]", "a tcp 127.0.0.1:8080 open [127.0.0.1 open]"}},
		{name: "and open one after the other",
			config: rules(Rule{First: 80, Last: 80, HostPort: 8080}, Rule{First: 90, Last: 90, HostPort: 8080}),
			play: func(r *rig) {
				r.add("a", "tcp 127.0.0.1:8080")
				r.add("a", "tcp 0.0.0.0:80")
				r.add("a", "tcp 127.0.0.1:90")
				r.remove("a", "tcp 127.0.0.1:8080")
			},
			open:   []string{"tcp 0.0.0.0:8080 -> a 127.0.0.1:80"},
			listed: []string{"a tcp 0.0.0.0:80 open [0.0.0.0:8080 open]", "a tcp 127.0.0.1:90 conflict [127.0.0.1:8080 conflict]"}},
		{name: "an older listener does not take a port that a rule leads it to",
			play: func(r *rig) {
				r.add("a", "tcp 127.0.0.1:80", "udp 127.0.0.1:80")
				r.add("a", "tcp 127.0.0.1:8080", "udp 127.0.0.1:8080")
				r.set(Policy{Rules: []Rule{{First: 80, Last: 80, HostPort: 8080}}})
			},
			open: []string{"tcp 127.0.0.1:8080 -> a 127.0.0.1:8080", "udp 127.0.0.1:8080 -> a 127.0.0.1:8080"},
			listed: []string{"a tcp 127.0.0.1:80 conflict [127.0.0.1:8080 conflict]", "a udp 127.0.0.1:80 conflict [127.0.0.1:8080 conflict]",
				"a tcp 127.0.0.1:8080 open [127.0.0.1 open]", "a udp 127.0.0.1:8080 open [127.0.0.1 open]"}},
		{name: "what is open of one service stays",
			config: rules(Rule{First: 53, Last: 53, GuestAddress: loopback4, Ignore: true}, Rule{HostAddress: loopback4}),
			play: func(r *rig) {
				r.add("a", "udp 127.0.0.1:53")
				r.add("a", "udp [::1]:53")
				r.set(Policy{Rules: []Rule{{HostAddress: loopback4}}})
			},
			open:   []string{"udp 127.0.0.1:53 -> a [::1]:53"},
			listed: []string{"a udp 127.0.0.1:53 open [127.0.0.1 open]", "a udp [::1]:53 open [127.0.0.1 open]"}},
		{name: "two ports change places",
			config: rules(Rule{First: 80, Last: 80, HostPort: 90}, Rule{First: 90, Last: 90, HostPort: 80}),
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:80", "tcp 127.0.0.1:90"); r.set(Policy{}); r.set(r.cfg.Policy) },
			open:   []string{"tcp 127.0.0.1:80 -> a 127.0.0.1:90", "tcp 127.0.0.1:90 -> a 127.0.0.1:80"},
			listed: []string{"a tcp 127.0.0.1:80 open [127.0.0.1:90 open]", "a tcp 127.0.0.1:90 open [127.0.0.1:80 open]"}},
		{name: "localhost of both families is one service",
			config: rules(Rule{HostAddress: wildcard4}),
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:80", "tcp [::1]:80", "tcp 0.0.0.0:81", "tcp [::]:81") },
			open:   []string{"tcp 0.0.0.0:80 -> a 127.0.0.1:80", "tcp 0.0.0.0:81 -> a 127.0.0.1:81"},
			listed: []string{"a tcp 127.0.0.1:80 open [0.0.0.0 open]", "a tcp [::1]:80 open [0.0.0.0 open]",
				"a tcp 0.0.0.0:81 open [0.0.0.0 open]", "a tcp [::]:81 open [0.0.0.0 open]"}},
		{name: "other addresses are others",
			config: rules(Rule{GuestAddress: loopback4, HostAddress: wildcard4}, Rule{First: 90, Last: 90, HostAddress: loopback4}),
			play:   func(r *rig) { r.add("a", "tcp 127.0.0.1:80", "tcp 10.0.0.5:80", "tcp 10.0.0.5:90", "tcp 10.0.0.6:90") },
			open:   []string{"tcp 0.0.0.0:80 -> a 127.0.0.1:80", "tcp 127.0.0.1:90 -> a 10.0.0.5:90"},
			listed: []string{"a tcp 10.0.0.5:80 conflict [10.0.0.5 conflict]", "a tcp 127.0.0.1:80 open [0.0.0.0 open]",
				"a tcp 10.0.0.5:90 open [127.0.0.1 open]", "a tcp 10.0.0.6:90 conflict [127.0.0.1 conflict]"}},
	})
}

// TestRuleReasons: conflicts name the guest's port that has this machine's, the log
// names both.
func TestRuleReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules(Rule{First: 80, Last: 80, HostPort: 8080}))
		r.host.foreign["tcp [::]:8080"] = true
		r.add("a", "tcp 0.0.0.0:80")
		r.add("a", "tcp 127.0.0.1:8080", "tcp [::1]:80")
		r.add("b", "tcp 127.0.0.1:80")
		time.Sleep(time.Second)
		for i, want := range []string{
			"",
			"tcp [::1]:8080 is in use by nginx (pid 7)",
			`tcp 0.0.0.0:8080 is in use by link "a" for its port 80`,
			"tcp 0.0.0.0:8080 is in use by the same guest's tcp 0.0.0.0:80",
		} {
			order := []string{"tcp 0.0.0.0:80", "tcp [::1]:80", "tcp 127.0.0.1:80", "tcp 127.0.0.1:8080"}
			for _, f := range r.ForwardsOf(8080) {
				if f.Key() == listener(order[i]).Key && f.Reason != want {
					t.Errorf("%s: %q, want %q", order[i], f.Reason, want)
				}
			}
		}
		if n := len(r.ForwardsOf(8080)); n != 4 {
			t.Errorf("%d forwards of port 8080", n)
		}
		for _, entry := range r.log.AllEntries() {
			if port, ok := entry.Data["host_port"]; entry.Data["guest"] == "tcp 0.0.0.0:80" && (!ok || port != uint16(8080)) ||
				entry.Data["guest"] == "tcp 127.0.0.1:8080" && ok {
				t.Errorf("%v: host port %v", entry.Data, port)
			}
		}
		// Moved on, it is told again; let go, with the port that it had.
		r.log.Reset()
		r.set(Policy{Rules: []Rule{{Protocol: message.TCP, GuestAddress: wildcard4, First: 80, Last: 80, HostPort: 9090}}, DenyPorts: ports("8080")})
		time.Sleep(time.Second)
		told := map[string]any{}
		for _, entry := range r.log.AllEntries() {
			told[fmt.Sprint(entry.Data["link"], " ", entry.Data["guest"], ": ", entry.Message)] = entry.Data["host_port"]
		}
		if told["a tcp 0.0.0.0:80: forward open"] != uint16(9090) {
			t.Errorf("log: %v", told)
		}
	})
}

// TestOwnerArrives: a listener that a rule asks the name of is closed until it has
// come, unmentioned for a second, and then opens as the rule says.
func TestOwnerArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules(Rule{Container: "web", First: 80, Last: 80, HostPort: 8080}, Rule{Process: "sshd", Ignore: true}))
		w := r.Watch()
		know := func(s string, o message.Owner) {
			l := listener(s)
			l.Owner = o
			r.ListenersChanged("a", message.Listeners{Add: []message.Listener{l}})
		}
		know("tcp 0.0.0.0:80", message.Owner{ContainerID: "0123", Process: "nginx"})
		know("tcp 0.0.0.0:81", message.Owner{ContainerID: "0123", Process: "nginx"})
		know("udp 0.0.0.0:80", message.Owner{ContainerID: "4567", Process: "nginx"})
		know("tcp 0.0.0.0:22", message.Owner{})
		time.Sleep(900 * time.Millisecond)
		equal(t, "open before", r.host.routes(), []string{"tcp 0.0.0.0:81 -> a 127.0.0.1:81"})
		equal(t, "listed before", states(r.Forwards()), []string{"a tcp 0.0.0.0:81 open [0.0.0.0 open]"})
		know("tcp 0.0.0.0:80", message.Owner{ContainerID: "0123", Container: "web", Process: "nginx"})
		equal(t, "open with a name", r.host.routes(), []string{"tcp 0.0.0.0:8080 -> a 127.0.0.1:80", "tcp 0.0.0.0:81 -> a 127.0.0.1:81"})
		time.Sleep(200 * time.Millisecond)
		list := r.Forwards()
		equal(t, "listed after", states(list), []string{"a tcp 0.0.0.0:22 ignored []", "a tcp 0.0.0.0:80 open [0.0.0.0:8080 open]",
			"a udp 0.0.0.0:80 ignored []", "a tcp 0.0.0.0:81 open [0.0.0.0 open]"})
		equal(t, "reasons", []string{list[0].Reason, list[2].Reason}, []string{
			"ports.rules[1] asks for the name of the process, which is not known",
			"ports.rules[0] asks for the name of the container, which is not known"})
		know("tcp 0.0.0.0:22", message.Owner{Process: "dropbear"})
		know("udp 0.0.0.0:80", message.Owner{ContainerID: "4567", Container: "dns", Process: "nginx"})
		equal(t, "open at last", r.host.routes(), []string{"tcp 0.0.0.0:22 -> a 127.0.0.1:22", "tcp 0.0.0.0:8080 -> a 127.0.0.1:80",
			"tcp 0.0.0.0:81 -> a 127.0.0.1:81", "udp 0.0.0.0:80 -> a 127.0.0.1:80"})
		time.Sleep(time.Second)
		if changes, err := w.Next(context.Background()); err != nil || len(changes) != 4 {
			t.Errorf("%d changes, %v; want one for each listener", len(changes), err)
		}
		equal(t, "log", r.lines(logrus.InfoLevel), []string{"forward open", "forward open", "forward open", "forward open"})
	})
}

// TestSetPolicySparesTheRest: what a change does not concern is not opened,
// closed or told anew.
func TestSetPolicySparesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twin)
		r.add("a", "tcp 0.0.0.0:1", "udp 127.0.0.1:1", "tcp [::]:2 dual", "udp [::]:2 dual", "tcp 127.0.0.1:3")
		r.add("b", "tcp 127.0.0.1:1")
		time.Sleep(time.Second)
		w := r.Watch()
		if changes, err := w.Next(context.Background()); err != nil || len(changes) != 6 {
			t.Fatalf("%d changes, %v", len(changes), err)
		}
		before := map[*fakeSocket]bool{}
		r.host.set(func() {
			for s := range r.host.open {
				if s.slot.at.Port() != 3 {
					before[s] = true
				}
			}
		})
		for _, p := range []Policy{
			{LocalhostTwin: true, DenyPorts: ports("3")},
			{LocalhostTwin: true, Rules: []Rule{{First: 3, Last: 3, HostPort: 1000}, {First: 1, Last: 2}}},
			{LocalhostTwin: true, Exposure: Mirror, Rules: []Rule{{First: 3, Last: 3, HostPort: 1000, HostAddress: loopback6}}, AllowPorts: ports("1-1000")},
		} {
			r.set(p)
			time.Sleep(time.Second)
			r.host.set(func() {
				for s := range before {
					if !r.host.open[s] {
						t.Errorf("%+v has closed %s", p, s.slot)
					}
				}
			})
			changes, err := w.Next(context.Background())
			if err != nil || len(changes) != 1 || changes[0].Forward.Guest.Port != 3 {
				t.Errorf("%+v: %+v, %v; want news of port 3", p, changes, err)
			}
		}
		equal(t, "port 3", states(r.ForwardsOf(3)), []string{"a tcp 127.0.0.1:3 open [[::1]:1000 open]"})
	})
}
