package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// fakeHost is an operating system that is only pretended: it refuses what Linux
// would, and counts.
type fakeHost struct {
	mu      sync.Mutex
	foreign map[string]bool  // "tcp 0.0.0.0:80": other processes' sockets
	broken  map[string]error // the error of binding there
	open    map[*fakeSocket]bool
	opens   int
	finds   int
	owner   portowner.Owner
}

func newFakeHost() *fakeHost {
	return &fakeHost{foreign: make(map[string]bool), broken: make(map[string]error),
		open: make(map[*fakeSocket]bool), owner: portowner.Owner{Process: "nginx", PID: 7}}
}

type fakeSocket struct {
	host  *fakeHost
	slot  slot
	route *route
}

func inTheWay(a, b slot) bool {
	return a.protocol == b.protocol && a.at.Port() == b.at.Port() &&
		a.at.Addr().Is4() == b.at.Addr().Is4() && overlap(a.at.Addr(), b.at.Addr())
}

func parseSlot(s string) slot {
	protocol, at, _ := strings.Cut(s, " ")
	return slot{protocol: message.Protocol(protocol), at: netip.MustParseAddrPort(at)}
}

func (s slot) String() string { return string(s.protocol) + " " + s.at.String() }

func (h *fakeHost) bind(s slot, r *route) (hostSocket, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opens++
	refuse := func(kind, err error) error {
		return &bind.Error{Protocol: string(s.protocol), At: s.at, Kind: kind, Err: err}
	}
	if err := h.broken[s.String()]; err != nil {
		return nil, refuse(err, err)
	}
	for f := range h.foreign {
		if inTheWay(parseSlot(f), s) {
			return nil, refuse(bind.ErrInUse, syscall.EADDRINUSE)
		}
	}
	for o := range h.open {
		if inTheWay(o.slot, s) {
			return nil, refuse(bind.ErrInUse, errors.New("the engine is in its own way"))
		}
	}
	f := &fakeSocket{host: h, slot: s, route: r}
	h.open[f] = true
	return f, nil
}

func (h *fakeHost) find(_ context.Context, ports []portowner.Port) ([]portowner.Owner, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finds++
	return slices.Repeat([]portowner.Owner{h.owner}, len(ports)), nil
}

func (f *fakeSocket) set(r *route) bool {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	if f.slot.protocol == message.UDP {
		return false
	}
	f.route = r
	return true
}

func (f *fakeSocket) close() {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	delete(f.host.open, f)
}

// routes lists the open sockets: "tcp 0.0.0.0:80 -> a 127.0.0.1:80".
func (h *fakeHost) routes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []string{}
	for f := range h.open {
		to := "reset"
		if f.route != nil {
			to = fmt.Sprintf("%s %s", f.route.carrier.(*fakeCarrier).name, f.route.guest)
		}
		out = append(out, f.slot.String()+" -> "+to)
	}
	slices.Sort(out)
	return out
}

func (h *fakeHost) set(what func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what()
}

type fakeCarrier struct {
	name string
	cut  func() // may be nil
}

func (*fakeCarrier) CarryTCP(*net.TCPConn, netip.AddrPort, *link.Stats) {}
func (*fakeCarrier) CarryUDP(*net.UDPConn, netip.AddrPort, func(netip.Addr) bool, *link.Stats) error {
	return nil
}

func (c *fakeCarrier) CutRetired() {
	if c.cut != nil {
		c.cut()
	}
}

// rig is an engine on a fake host, with links a and b.
type rig struct {
	*Engine
	host *fakeHost
	log  *logtest.Hook
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	host := newFakeHost()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	cfg := Config{Enabled: true, MaxSockets: 100000, Log: logger,
		system: system{open: host.bind, find: host.find}}
	if change != nil {
		change(&cfg)
	}
	e := New(cfg)
	t.Cleanup(e.Close)
	e.SetLink("a", &fakeCarrier{name: "a"})
	e.SetLink("b", &fakeCarrier{name: "b"})
	return &rig{e, host, hook}
}

// left counts what the engine still has: groups, retries, sockets.
func (r *rig) left() [3]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return [3]int{len(r.groups), len(r.retries.heap), r.sockets}
}

// stats are those of one listener of link a.
func (r *rig) stats(s string) *link.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &r.links["a"].forwards[listener(s).Key].claims[0].stats
}

// listener reads "tcp 0.0.0.0:80" or "tcp [::]:80 dual".
func listener(s string) message.Listener {
	s, dual := strings.CutSuffix(s, " dual")
	k := parseSlot(s)
	return message.Listener{Key: message.Key{Protocol: k.protocol, Address: k.at.Addr(), Port: k.at.Port(), DualStack: dual}}
}

// ports reads rules: "53 8000-8100/udp".
func ports(s string) []PortRule {
	out := []PortRule{}
	for _, f := range strings.Fields(s) {
		r, err := ParsePortRule(f)
		if err != nil {
			panic(err)
		}
		out = append(out, r)
	}
	return out
}

// set changes the policy to one that validates.
func (r *rig) set(p Policy) {
	if err := r.SetPolicy(p); err != nil {
		panic(err)
	}
}

func (r *rig) add(link string, listeners ...string) {
	var m message.Listeners
	for _, s := range listeners {
		m.Add = append(m.Add, listener(s))
	}
	r.ListenersChanged(link, m)
}

func (r *rig) remove(link string, listeners ...string) {
	var m message.Listeners
	for _, s := range listeners {
		m.Remove = append(m.Remove, listener(s).Key)
	}
	r.ListenersChanged(link, m)
}

// states words a listing: "a tcp 0.0.0.0:80 open [0.0.0.0 open]", with the host's
// port where it is another.
func states(list []Forward) []string {
	out := []string{}
	for _, f := range list {
		var hosts []string
		for _, h := range f.Host {
			s := fmt.Sprintf("%s %s", h.Address, h.State)
			if h.Port != f.Guest.Port {
				s = fmt.Sprintf("%s %s", netip.AddrPortFrom(h.Address, h.Port), h.State)
			}
			if h.Alias {
				s += " alias"
			}
			hosts = append(hosts, s)
		}
		out = append(out, fmt.Sprintf("%s %s %s %v", f.Link, f.Key(), f.State, hosts))
	}
	return out
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  got  %s\n  want %s", what, strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	}
}

// lines are the log's messages of a level and above.
func (r *rig) lines(level logrus.Level) []string {
	out := []string{}
	for _, entry := range r.log.AllEntries() {
		if entry.Level <= level {
			line := entry.Message
			if why, ok := entry.Data["reason"]; ok {
				line += ": " + why.(string)
			}
			out = append(out, line)
		}
	}
	return out
}
