package forward

import (
	"net/netip"
	"path"
	"slices"
	"strconv"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
	wildcard4 = netip.IPv4Unspecified()
	wildcard6 = netip.IPv6Unspecified()
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// plan is what the policy wants for one listener: host addresses to open, or
// none and a state with its reason.
type plan struct {
	binds  []bindWish
	state  State
	reason string
	// hidden keeps what users do not think of as a listener out of listings.
	hidden bool
	// waits says that a name of the owner is missing, which may come any moment.
	waits bool
}

func (p plan) equal(q plan) bool {
	return p.state == q.state && p.reason == q.reason && p.hidden == q.hidden && p.waits == q.waits &&
		slices.Equal(p.binds, q.binds)
}

// bindWish is one host address to open, and the guest address that its clients
// reach. A wildcard listener is reached on the loopback of the family that the
// client used.
type bindWish struct {
	host  netip.AddrPort
	guest netip.AddrPort
	alias bool // localhost_twin: only when nobody else wants it
}

func ignored(reason string) plan { return plan{state: Ignored, reason: reason} }
func denied(reason string) plan  { return plan{state: Denied, reason: reason} }

// plan never gives an address wider than the listener's own, unless a rule names
// the address.
func (p *Policy) plan(l message.Listener) plan {
	out := p.decide(l)
	// A UDP client is nothing to tell of because a rule leaves it out.
	out.hidden = l.Ephemeral && len(out.binds) == 0
	return out
}

// decide finds who decides about a listener. As long as that is a rule that asks
// for a name which is missing, the listener stays closed, for ever if need be: a
// port must not be open for the moment that an engine takes to name a container,
// and nobody can tell a name that comes late from one that never comes. Only when
// it makes no difference is it opened.
func (p *Policy) decide(l message.Listener) plan {
	if r, ok := firstMatch(p.DenyPorts, l.Protocol, l.Port); ok {
		return denied("the settings deny port " + r.String())
	}
	var doubts []*Rule
	outcome := func() plan {
		for i := range p.Rules {
			switch v, _ := p.Rules[i].matches(l); v {
			case yes:
				return p.ruled(l, &p.Rules[i])
			case unknown:
				doubts = append(doubts, &p.Rules[i])
			}
		}
		return p.unruled(l)
	}()
	for _, r := range doubts {
		if !slices.Equal(p.ruled(l, r).binds, outcome.binds) {
			_, missing := r.matches(l)
			return plan{state: Ignored, waits: true, reason: r.Name + " asks for the " + missing + ", which is not known"}
		}
	}
	return outcome
}

// ruled is what becomes of a listener that a rule matches.
func (p *Policy) ruled(l message.Listener, r *Rule) plan {
	if r.Ignore {
		return ignored("ignored by " + r.Name)
	}
	return p.open(l, r)
}

// unruled is what becomes of a listener that no rule matches.
func (p *Policy) unruled(l message.Listener) plan {
	if l.Ephemeral {
		return ignored("the kernel chose the UDP port: a client, unless a rule forwards it")
	}
	if r, ok := firstMatch(p.IgnorePorts, l.Protocol, l.Port); ok {
		return ignored("the settings ignore port " + r.String())
	}
	if pattern, ok := p.ignoresProcess(l.Owner); ok {
		return ignored("the settings ignore the VM's own process " + pattern)
	}
	return p.open(l, &Rule{})
}

// open is a listener that is to be forwarded, the way that a rule says.
func (p *Policy) open(l message.Listener, r *Rule) plan {
	if reason := unforwardable(l.Address); reason != "" {
		return ignored(reason)
	}
	port := r.hostPort(l.Port)
	if reason := p.forbids(l, r, port); reason != "" {
		return denied(reason)
	}
	var out plan
	add := func(host, guest netip.Addr, alias bool) {
		out.binds = append(out.binds, bindWish{netip.AddrPortFrom(host, port), netip.AddrPortFrom(guest, l.Port), alias})
	}
	local := p.Exposure == Loopback
	if host := r.HostAddress; host.IsValid() {
		if local && host.IsUnspecified() {
			host = pick(host.Is4(), loopback4, loopback6)
		}
		if local && !host.IsLoopback() {
			return denied("exposure is loopback, and " + r.Name + " opens " + host.String())
		}
		add(host, target(l, host), false)
		return out
	}
	switch a := l.Address; {
	case a == wildcard4:
		add(pick(local, loopback4, wildcard4), loopback4, false)
	case a == wildcard6:
		if l.DualStack {
			add(pick(local, loopback4, wildcard4), loopback4, false)
		}
		add(pick(local, loopback6, wildcard6), loopback6, false)
	case local && !a.IsLoopback():
		return ignored("exposure is loopback, and the guest listens on " + a.String() + " only")
	default:
		add(a, a, false)
	}
	if p.LocalhostTwin && (l.Address == wildcard4 || l.Address == loopback4) {
		add(loopback6, loopback4, true)
	}
	return out
}

// target is where the clients of a host address that a rule names are taken: the
// guest's address of the same family where it has both, else the one it has.
func target(l message.Listener, host netip.Addr) netip.Addr {
	switch {
	case l.Address == wildcard4 || l.DualStack && host.Is4():
		return loopback4
	case l.Address == wildcard6:
		return loopback6
	}
	return l.Address
}

// forbids gives the reason why a port of this machine is not to be opened, empty
// when it is.
func (p *Policy) forbids(l message.Listener, r *Rule, port uint16) string {
	where := ""
	if port != l.Port {
		where = r.Name + " leads to port " + strconv.Itoa(int(port)) + ", and "
	}
	if d, ok := firstMatch(p.DenyPorts, l.Protocol, port); ok {
		return where + "the settings deny port " + d.String()
	}
	if _, ok := firstMatch(p.AllowPorts, l.Protocol, port); !ok && p.AllowPorts != nil {
		return where + "the settings allow other ports only"
	}
	return ""
}

func (p *Policy) ignoresProcess(o message.Owner) (string, bool) {
	if o.Container != "" || o.ContainerID != "" || o.Process == "" {
		return "", false
	}
	for _, pattern := range p.IgnoreProcesses {
		if ok, _ := path.Match(pattern, o.Process); ok {
			return pattern, true
		}
	}
	return "", false
}

// unforwardable are addresses that can mean nothing on the host.
func unforwardable(a netip.Addr) string {
	switch {
	case a.IsMulticast() || a == broadcast:
		return "multicast and broadcast are not forwarded"
	case a.Zone() != "" || a.IsLinkLocalUnicast() && a.Is6():
		return "a link-local address of the VM"
	}
	return ""
}

func pick(first bool, a, b netip.Addr) netip.Addr {
	if first {
		return a
	}
	return b
}
