package forward

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Exposure says how far forwards reach. Empty is Mirror.
type Exposure string

// Mirror opens the addresses that the guest bound; Loopback narrows them to the
// host's loopback.
const (
	Mirror   Exposure = "mirror"
	Loopback Exposure = "loopback"
)

// Policy decides what becomes of a listener. The guest has no say in it. The zero
// value forwards everything but UDP clients.
type Policy struct {
	Exposure Exposure
	// LocalhostTwin also opens ::1, when it is free, for a listener on the IPv4
	// loopback or wildcard: where `localhost` means ::1 first.
	LocalhostTwin bool
	// DenyPorts come before everything else. They hold for the guest's port and,
	// where a rule has led to another, for this machine's as well.
	DenyPorts []PortRule
	// AllowPorts are the only ports of this machine that are opened. Nil allows
	// every one, an empty list none.
	AllowPorts []PortRule
	// Rules are looked at in order; the first that matches decides. What is below
	// is only for listeners that none matches, and so is the silence about UDP
	// clients.
	Rules       []Rule
	IgnorePorts []PortRule
	// IgnoreProcesses are patterns (path.Match) of process names outside
	// containers: services of the VM itself.
	IgnoreProcesses []string
}

// Validate finds what New and SetPolicy would otherwise take as it is.
func (p Policy) Validate() error {
	if p.Exposure != "" && p.Exposure != Mirror && p.Exposure != Loopback {
		return fmt.Errorf("exposure %q: want %q or %q", p.Exposure, Mirror, Loopback)
	}
	for i := range p.Rules {
		if err := p.Rules[i].validate(); err != nil {
			return fmt.Errorf("%s: %w", p.Rules[i].Name, err)
		}
	}
	for _, pattern := range p.IgnoreProcesses {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("process pattern %q: %w", pattern, err)
		}
	}
	return nil
}

// PortRule matches ports First to Last of a protocol, or of both when it is
// empty.
type PortRule struct {
	Protocol    message.Protocol
	First, Last uint16
}

// ErrPortRule is wrapped by every error of ParsePortRule.
var ErrPortRule = errors.New(`want PORT, PORT-PORT, with /tcp or /udp after it for one protocol`)

// ParsePortRule reads "53", "22/tcp" or "8000-8100/udp".
func ParsePortRule(s string) (PortRule, error) {
	ports, protocol, one := strings.Cut(s, "/")
	r := PortRule{Protocol: message.Protocol(protocol)}
	if one && r.Protocol != message.TCP && r.Protocol != message.UDP {
		return PortRule{}, fmt.Errorf("port rule %q: %w", s, ErrPortRule)
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a == 0 || a > b {
		return PortRule{}, fmt.Errorf("port rule %q: %w", s, ErrPortRule)
	}
	r.First, r.Last = uint16(a), uint16(b)
	return r, nil
}

// String is the form that ParsePortRule reads.
func (r PortRule) String() string {
	s := strconv.Itoa(int(r.First))
	if r.Last != r.First {
		s += "-" + strconv.Itoa(int(r.Last))
	}
	if r.Protocol != "" {
		s += "/" + string(r.Protocol)
	}
	return s
}

// Matches tells whether the rule is about a port.
func (r PortRule) Matches(protocol message.Protocol, port uint16) bool {
	return r.First <= port && port <= r.Last && (r.Protocol == "" || r.Protocol == protocol)
}

func firstMatch(rules []PortRule, protocol message.Protocol, port uint16) (PortRule, bool) {
	for _, r := range rules {
		if r.Matches(protocol, port) {
			return r, true
		}
	}
	return PortRule{}, false
}
