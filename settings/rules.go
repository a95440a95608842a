package settings

import (
	"errors"
	"fmt"
	"net/netip"

	"gopkg.in/yaml.v3"
)

// Action is what a rule does with the listeners that it matches.
type Action string

const (
	// Forward opens the listener on this machine, whatever the other settings
	// ignore.
	Forward Action = "forward"
	// Ignore leaves the listener alone.
	Ignore Action = "ignore"
)

// Rule says what becomes of the listeners that meet all of its criteria. The
// zero value of a criterion is met by every listener.
type Rule struct {
	Protocol     string     // "tcp" or "udp"
	GuestAddress netip.Addr // that the guest's socket is bound to
	First, Last  uint16     // the guest's ports
	// Patterns of path.Match.
	Container, Image, Process string

	Action Action
	// HostAddress is opened instead of the guest's address, where it is valid.
	HostAddress netip.Addr
	// HostPort is opened instead of First, HostPort+1 instead of First+1, and so
	// on. 0 keeps the guest's ports.
	HostPort uint16
}

// ruleMembers are the names in a rule, in the order in which they are written.
var ruleMembers = []string{"protocol", "guest_address", "port", "container", "image", "process", "action", "host_address", "host_port"}

// rules is a list whose first match decides.
func rules() kind[[]Rule] {
	return kind[[]Rule]{
		read: list(rule, func(all []Rule) error {
			last := len(all) - 1
			for i, r := range all[:last] {
				if r.covers(all[last]) {
					return fmt.Errorf("is never reached: [%d] matches everything that it matches", i)
				}
			}
			for i := range last {
				if port, ok := clash(all, i, last); ok {
					return fmt.Errorf("opens port %d of this machine, as [%d] does for another port of the guest, and nothing else tells the two apart", port, i)
				}
			}
			return nil
		}),
		node: sequence(0, ruleNode),
		list: true,
	}
}

func rule(n *yaml.Node) (Rule, error) {
	found, err := members(n, ruleMembers...)
	if err != nil {
		return Rule{}, err
	}
	var r Rule
	var hostFirst, hostLast uint16
	readers := map[string]func(*yaml.Node) error{
		"protocol":      into(&r.Protocol, oneOf("tcp", "udp").read),
		"guest_address": into(&r.GuestAddress, address),
		"port":          func(n *yaml.Node) (err error) { r.First, r.Last, err = rulePorts(n); return err },
		"container":     into(&r.Container, pattern),
		"image":         into(&r.Image, pattern),
		"process":       into(&r.Process, pattern),
		"action":        into(&r.Action, oneOf(Forward, Ignore).read),
		"host_address":  into(&r.HostAddress, hostAddress),
		"host_port":     func(n *yaml.Node) (err error) { hostFirst, hostLast, err = rulePorts(n); return err },
	}
	for _, name := range ruleMembers {
		if found[name] == nil {
			continue
		}
		if err := readers[name](found[name]); err != nil {
			return Rule{}, within("."+name, found[name], err)
		}
	}
	r.HostPort = hostFirst

	mapped := r.HostAddress.IsValid() || r.HostPort != 0
	switch {
	case r.any():
		return Rule{}, errors.New("must have at least one of protocol, guest_address, port, container, image, process")
	case r.Action == "" && !mapped:
		return Rule{}, errors.New("must say what to do: action, host_address or host_port")
	case r.Action == Ignore && mapped:
		return Rule{}, within(".action", found["action"], errors.New("what is ignored has no host_address or host_port"))
	case r.HostPort != 0 && r.First == 0:
		return Rule{}, within(".host_port", found["host_port"], errors.New("needs port, the guest's"))
	case r.HostPort != 0 && hostLast-hostFirst != r.Last-r.First:
		return Rule{}, within(".host_port", found["host_port"], fmt.Errorf("%s and port %s are not of equal length",
			formatPorts(hostFirst, hostLast), formatPorts(r.First, r.Last)))
	case r.Action == "":
		r.Action = Forward
	}
	return r, nil
}

// into puts what read gives into target.
func into[T any](target *T, read func(*yaml.Node) (T, error)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := read(n)
		if err == nil {
			*target = v
		}
		return err
	}
}

// rulePorts takes ports whose protocol is said elsewhere.
func rulePorts(n *yaml.Node) (first, last uint16, err error) {
	s, err := text(n)
	if err != nil {
		return 0, 0, err
	}
	if r, err := ParsePortRange(s); err == nil && r.Protocol != "" {
		return 0, 0, fmt.Errorf("must be PORT or PORT-PORT, not %q: say protocol: %s", s, r.Protocol)
	}
	return parsePorts(s)
}

func address(n *yaml.Node) (netip.Addr, error) {
	s, err := text(n)
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("must be an IP address without a zone, not %q", s)
	}
	return a.Unmap(), nil
}

// hostAddress takes an address that this machine may listen on.
func hostAddress(n *yaml.Node) (netip.Addr, error) {
	a, err := address(n)
	if err == nil && (a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})) {
		return netip.Addr{}, fmt.Errorf("nobody can listen on %s, which is for multicast or broadcast", a)
	}
	return a, err
}

// ruleNode writes a rule on one line.
func ruleNode(r Rule) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	add := func(name string, value *yaml.Node) { n.Content = append(n.Content, str(name), value) }
	addText := func(name, value string) {
		if value != "" {
			add(name, str(value))
		}
	}
	addText("protocol", r.Protocol)
	if r.GuestAddress.IsValid() {
		add("guest_address", str(r.GuestAddress.String()))
	}
	if r.First != 0 {
		add("port", scalar(formatPorts(r.First, r.Last)))
	}
	addText("container", r.Container)
	addText("image", r.Image)
	addText("process", r.Process)
	if r.Action == Ignore || !r.HostAddress.IsValid() && r.HostPort == 0 {
		addText("action", string(r.Action))
	}
	if r.HostAddress.IsValid() {
		add("host_address", str(r.HostAddress.String()))
	}
	if r.HostPort != 0 {
		add("host_port", scalar(formatPorts(r.HostPort, r.HostPort+(r.Last-r.First))))
	}
	return n
}
