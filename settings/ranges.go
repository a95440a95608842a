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
	s := formatPorts(r.First, r.Last)
	if r.Protocol != "" {
		s += "/" + r.Protocol
	}
	return s
}

// overlaps tells whether some port is in both.
func (r PortRange) overlaps(o PortRange) bool {
	return r.First <= o.Last && o.First <= r.Last && (r.Protocol == "" || o.Protocol == "" || r.Protocol == o.Protocol)
}

// ParsePortRange reads PORT[-PORT][/tcp|/udp].
func ParsePortRange(s string) (PortRange, error) {
	var r PortRange
	ports, protocol, found := strings.Cut(s, "/")
	if found && protocol != "tcp" && protocol != "udp" {
		return PortRange{}, fmt.Errorf("must be PORT or PORT-PORT, with /tcp or /udp for one protocol, not %q", s)
	}
	r.Protocol = protocol
	var err error
	r.First, r.Last, err = parsePorts(ports)
	if err != nil {
		return PortRange{}, err
	}
	return r, nil
}

// parsePorts reads PORT or PORT-PORT.
func parsePorts(s string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	for _, end := range []struct {
		text string
		port *uint16
	}{{from, &first}, {to, &last}} {
		if end.text == "" || strings.Trim(end.text, "0123456789") != "" || len(s) > 20 {
			return 0, 0, fmt.Errorf("must be PORT or PORT-PORT, not %q", s)
		}
		n, err := strconv.ParseUint(end.text, 10, 16)
		if err != nil || n == 0 {
			return 0, 0, fmt.Errorf("%s is no port: ports are 1 to 65535", end.text)
		}
		if end.text[0] == '0' { // which some take for octal
			return 0, 0, fmt.Errorf("%s must not begin with 0", end.text)
		}
		*end.port = uint16(n)
	}
	if last < first {
		return 0, 0, fmt.Errorf("%s runs backwards", s)
	}
	return first, last, nil
}

func formatPorts(first, last uint16) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// portRanges is a list of ranges that do not overlap.
func portRanges() kind[[]PortRange] {
	return kind[[]PortRange]{
		read: list(portRange, func(all []PortRange) error {
			last := len(all) - 1
			for i, r := range all[:last] {
				if r.overlaps(all[last]) {
					return fmt.Errorf("%s overlaps %s, which is [%d]", all[last], r, i)
				}
			}
			return nil
		}),
		node:  sequence(yaml.FlowStyle, func(r PortRange) *yaml.Node { return scalar(r.String()) }),
		parse: commaSeparated,
		list:  true,
	}
}

func portRange(n *yaml.Node) (PortRange, error) {
	s, err := text(n)
	if err != nil {
		return PortRange{}, err
	}
	return ParsePortRange(s)
}

// allPorts is written where every port is meant.
const allPorts = "all"

// portRangesOrAll is a list of ranges, or the word all, which is nil.
func portRangesOrAll() kind[[]PortRange] {
	ranges := portRanges()
	return kind[[]PortRange]{
		values: []string{allPorts},
		read: func(n *yaml.Node) ([]PortRange, error) {
			if n.Kind == yaml.ScalarNode {
				if n.Value == allPorts {
					return nil, nil
				}
				return nil, fmt.Errorf("must be %s or a list%s", allPorts, got(n))
			}
			return ranges.read(n)
		},
		node: func(v []PortRange) *yaml.Node {
			if v == nil {
				return scalar(allPorts)
			}
			return ranges.node(v)
		},
		parse: func(s string) (*yaml.Node, error) {
			if strings.TrimSpace(s) == allPorts {
				return scalar(allPorts), nil
			}
			return commaSeparated(s)
		},
		list: true,
	}
}
