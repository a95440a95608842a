package portowner

import (
	"context"
	"fmt"
	"net/netip"
)

// Port is what somebody else holds.
type Port struct {
	Protocol string // "tcp" or "udp"
	At       netip.AddrPort
}

// Owner is who holds a port, as far as the system tells. The zero value is
// nobody that was found.
type Owner struct {
	Process string
	PID     int
	// User is set when the process is not known, but whose it is: "uid 0 (root)".
	// Hidden says that the system does not show the process to us.
	User   string
	Hidden bool
}

func (o Owner) String() string {
	switch {
	case o.PID != 0 && o.Process != "":
		return fmt.Sprintf("%s (pid %d)", o.Process, o.PID)
	case o.PID != 0:
		return fmt.Sprintf("pid %d", o.PID)
	case o.Hidden && o.User != "":
		return "a process of " + o.User + ", hidden by the system"
	case o.Hidden:
		return "a process hidden by the system"
	case o.User != "":
		return "a process of " + o.User
	}
	return "an unknown process"
}

// Find looks up the owners of ports, in their order.
func Find(ctx context.Context, ports []Port) ([]Owner, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	owners, err := find(ctx, ports)
	if err != nil {
		return owners, fmt.Errorf("look up the owners of ports: %w", err)
	}
	return owners, nil
}

// socket is one socket of the system, reduced to what decides a conflict.
type socket struct {
	protocol  string
	at        netip.AddrPort // IPv4-mapped addresses unmapped
	listening bool           // TCP in LISTEN, UDP unconnected
	holder    int            // what the system's scan identifies it by
	uid       int
}

// index finds sockets by protocol and port.
type index map[indexKey][]socket

type indexKey struct {
	protocol string
	port     uint16
}

func (x index) add(s socket) {
	k := indexKey{s.protocol, s.at.Port()}
	x[k] = append(x[k], s)
}

// holder picks the socket that stands in the way of p: one that listens rather
// than a mere connection, the same address rather than a wildcard, the same
// family rather than a dual-stack wildcard.
func (x index) holder(p Port) (socket, bool) {
	var best socket
	bestRank := 0
	for _, s := range x[indexKey{p.Protocol, p.At.Port()}] {
		rank := 0
		a, b := p.At.Addr(), s.at.Addr()
		switch {
		case a == b:
			rank = 4
		case a.BitLen() == b.BitLen() && b.IsUnspecified():
			rank = 3
		case a.BitLen() == b.BitLen() && a.IsUnspecified():
			rank = 2
		case b == netip.IPv6Unspecified():
			rank = 1
		default:
			continue
		}
		if s.listening {
			rank += 4
		}
		if rank > bestRank {
			best, bestRank = s, rank
		}
	}
	return best, bestRank > 0
}

// userName gives "uid 0 (root)", or the number alone for a user without a name.
func userName(uid int, name string) string {
	if name == "" {
		return fmt.Sprintf("uid %d", uid)
	}
	return fmt.Sprintf("uid %d (%s)", uid, name)
}
