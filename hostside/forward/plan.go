package forward

import (
	"net/netip"
	"path"

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
}

// bindWish is one host address to open, and the guest address that its clients
// reach. A wildcard listener is reached on the loopback of the family that the
// client used.
type bindWish struct {
	host  netip.Addr
	guest netip.AddrPort
	alias bool // localhost_twin: only when nobody else wants it
}

func ignored(reason string) plan { return plan{state: Ignored, reason: reason} }

// plan never gives an address wider than the listener's own.
func (p Policy) plan(l message.Listener) plan {
	if r, ok := firstMatch(p.DenyPorts, l.Key); ok {
		return plan{state: Denied, reason: "the settings deny port " + r.String()}
	}
	if _, forced := firstMatch(p.ForwardPorts, l.Key); !forced {
		if l.Ephemeral {
			return plan{state: Ignored, hidden: true,
				reason: "the kernel chose the UDP port: a client, unless a rule forwards it"}
		}
		if r, ok := firstMatch(p.IgnorePorts, l.Key); ok {
			return ignored("the settings ignore port " + r.String())
		}
		if pattern, ok := p.ignoresProcess(l.Owner); ok {
			return ignored("the settings ignore the VM's own process " + pattern)
		}
	}
	if reason := unforwardable(l.Address); reason != "" {
		return ignored(reason)
	}
	var out plan
	add := func(host, guest netip.Addr, alias bool) {
		out.binds = append(out.binds, bindWish{host, netip.AddrPortFrom(guest, l.Port), alias})
	}
	local := p.Exposure == Loopback
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

func (p Policy) ignoresProcess(o message.Owner) (string, bool) {
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
