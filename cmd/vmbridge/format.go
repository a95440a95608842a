package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vmbridge/vmbridge/hostside/control"
)

func guestText(a control.Address) string {
	s := netip.AddrPortFrom(a.Address, a.Port).String()
	if a.DualStack {
		s += " +ipv4"
	}
	return s
}

// hostGroup is the host addresses of one port that share state and reason.
type hostGroup struct {
	addresses, state, reason string
}

// hostGroups has at least one element: a port without host addresses, which
// policy left out, has its own state.
func hostGroups(p control.Port) []hostGroup {
	if len(p.Host) == 0 {
		return []hostGroup{{"", p.State, p.Reason}}
	}
	var groups []hostGroup
	index := make(map[[2]string]int)
	for _, h := range p.Host {
		address := netip.AddrPortFrom(h.Address, h.Port).String()
		if h.Alias {
			address += " (alias)"
		}
		key := [2]string{h.State, h.Reason}
		i, ok := index[key]
		if !ok {
			index[key] = len(groups)
			groups = append(groups, hostGroup{address, h.State, h.Reason})
			continue
		}
		groups[i].addresses += ", " + address
	}
	return groups
}

// details is the last column: the reason where there is one, and the owner.
func details(reason string, o control.Owner) string {
	owner := ownerText(o)
	if reason == "" {
		return owner
	}
	if owner == "" {
		return reason
	}
	return reason + "; guest: " + owner
}

func ownerText(o control.Owner) string {
	var parts []string
	if o.Container != "" {
		s := "container " + o.Container
		if o.Image != "" {
			s += " (" + o.Image + ")"
		}
		parts = append(parts, s)
	}
	if o.Process != "" {
		s := o.Process
		if o.PID != 0 {
			s += fmt.Sprintf(" (pid %d)", o.PID)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}
