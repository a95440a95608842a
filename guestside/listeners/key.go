package listeners

import (
	"net/netip"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// keyOf gives the listener that a socket belongs to. ifname names the interface
// with an index, for link-local addresses.
func keyOf(p sockdiag.Protocol, s *sockdiag.Socket, ifname func(index uint32) string) message.Key {
	k := message.Key{Protocol: message.TCP, Address: s.Local.Addr(), Port: s.Local.Port()}
	if p == sockdiag.UDP {
		k.Protocol = message.UDP
	}
	switch {
	case k.Address.Is4In6():
		k.Address = k.Address.Unmap()
	case k.Address == netip.IPv6Unspecified():
		k.DualStack = !s.V6Only
	case k.Address.Is6() && k.Address.IsLinkLocalUnicast() && s.Interface != 0:
		k.Address = k.Address.WithZone(ifname(s.Interface))
	}
	return k
}
