package reach

import (
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Policy says which ports of the loopback guests reach.
type Policy struct {
	Enabled bool
	// Allow lists the ports that may be reached; nil allows every one.
	Allow []forward.PortRule
	// Deny lists those that may not, whatever Allow says.
	Deny []forward.PortRule
}

// forbids gives the reason why a port is not to be reached, empty when it is.
func (p Policy) forbids(protocol message.Protocol, port uint16) string {
	if !p.Enabled {
		return "host reach is off"
	}
	for _, r := range p.Deny {
		if r.Matches(protocol, port) {
			return "the settings deny port " + r.String()
		}
	}
	if p.Allow == nil {
		return ""
	}
	for _, r := range p.Allow {
		if r.Matches(protocol, port) {
			return ""
		}
	}
	return "the settings allow other ports only"
}
