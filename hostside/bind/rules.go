package bind

import (
	"errors"
	"net/netip"
)

// rules are the ways in which a system differs; each is explained in the
// package comment.
type rules struct {
	rivals       bool // wildcard and specific TCP binds may coexist: probe
	lowPortsWide bool // ordinary users get ports below 1024 on the wildcard only
	lingers      bool // accepted connections hold the port
	prompts      bool // a wildcard bind may have the firewall ask the user
}

func rulesFor(goos string) rules {
	switch goos {
	case "darwin":
		return rules{rivals: true, lowPortsWide: true, prompts: true}
	case "windows":
		return rules{lingers: true, prompts: true}
	}
	return rules{}
}

// rival is the address whose owner would share the traffic of at: the wildcard
// for a specific address, and for the wildcard the loopback, which is what
// clients of this machine use.
func (r rules) rival(protocol string, at netip.AddrPort) (netip.AddrPort, bool) {
	if !r.rivals || protocol != "tcp" {
		return netip.AddrPort{}, false
	}
	if !at.Addr().IsUnspecified() {
		return wildcard(at), true
	}
	loopback := netip.IPv6Loopback()
	if at.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(loopback, at.Port()), true
}

// instead is the wildcard to bind for a loopback address that was refused for
// want of permission. Only 127.0.0.1 and ::1, which every system has: a wildcard
// would seem to give any other 127.x too.
func (r rules) instead(at netip.AddrPort, err error) (netip.AddrPort, bool) {
	if !r.lowPortsWide || at.Port() >= 1024 || !errors.Is(err, ErrPermission) {
		return netip.AddrPort{}, false
	}
	if a := at.Addr(); a != netip.AddrFrom4([4]byte{127, 0, 0, 1}) && a != netip.IPv6Loopback() {
		return netip.AddrPort{}, false
	}
	return wildcard(at), true
}

func wildcard(at netip.AddrPort) netip.AddrPort {
	if at.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
}
