package settings

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// PortRange is a run of ports of one protocol or of both.
type PortRange struct {
	Protocol    string // "tcp", "udp", or empty for both
	First, Last uint16
}

// String gives the form that ParsePortRange takes.
func (r PortRange) String() string {
	s := strconv.Itoa(int(r.First))
	if r.Last != r.First {
		s += "-" + strconv.Itoa(int(r.Last))
	}
	if r.Protocol != "" {
		s += "/" + r.Protocol
	}
	return s
}

// ParsePortRange reads PORT[-PORT][/tcp|/udp].
func ParsePortRange(s string) (PortRange, error) {
	malformed := fmt.Errorf("must be PORT or PORT-PORT, with /tcp or /udp for one protocol, not %q", s)
	var r PortRange
	ports, protocol, found := strings.Cut(s, "/")
	if found {
		if protocol != "tcp" && protocol != "udp" {
			return PortRange{}, malformed
		}
		r.Protocol = protocol
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	var ok1, ok2 bool
	r.First, ok1 = parsePort(first)
	r.Last, ok2 = parsePort(last)
	if !ok1 || !ok2 || r.Last < r.First {
		return PortRange{}, malformed
	}
	return r, nil
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}

func portRange(n *yaml.Node) (PortRange, error) {
	s, err := text(n)
	if err != nil {
		return PortRange{}, err
	}
	return ParsePortRange(s)
}
