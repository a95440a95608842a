package settings

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// KeyInfo describes a key.
type KeyInfo struct {
	Key, Help string
	Default   string   // in the form that Store.Set takes
	Values    []string // the values that there are, or the common ones; nil where neither can be listed
}

// Keys lists all keys, in the order in which they are shown.
func Keys() []KeyInfo {
	d := Default()
	infos := make([]KeyInfo, 0, len(table))
	for _, k := range table {
		infos = append(infos, KeyInfo{Key: k.name, Help: k.help, Default: flow(k.node(&d)), Values: slices.Clone(k.values)})
	}
	return infos
}

// key is one line of the table.
type key struct {
	name, help string
	values     []string
	// read checks a value strictly and puts it into s.
	read func(s *Settings, n *yaml.Node) error
	// node is the value that s has, in the form that read takes.
	node func(s *Settings) *yaml.Node
	// parse reads the value's text form: see text.go.
	parse func(text string) (*yaml.Node, error)
	list  bool
}

// kind is how values of one type are written.
type kind[T any] struct {
	read   func(*yaml.Node) (T, error)
	node   func(T) *yaml.Node
	parse  func(text string) (*yaml.Node, error) // nil when only YAML will do
	values []string
	list   bool
}

func entry[T any](name, help string, field func(*Settings) *T, k kind[T]) key {
	e := key{
		name: name, help: help, values: k.values, list: k.list,
		read: func(s *Settings, n *yaml.Node) error {
			v, err := k.read(n)
			if err != nil {
				return within(name, n, err)
			}
			*field(s) = v
			return nil
		},
		node:  func(s *Settings) *yaml.Node { return k.node(*field(s)) },
		parse: k.parse,
	}
	if e.parse == nil {
		e.parse = parseYAML
	}
	return e
}

// table holds every key there is. It does not change.
var table = []key{
	entry("host_networking.enabled", "forward the guests' ports, and let guests reach this machine",
		func(s *Settings) *bool { return &s.HostNetworking.Enabled }, boolean()),
	entry("exposure", "open what the guest's socket is bound to, or only this machine's loopback",
		func(s *Settings) *Exposure { return &s.Exposure }, oneOf(Mirror, Loopback)),
	entry("localhost_twin", "also open ::1 for IPv4 listeners, where it is free",
		func(s *Settings) *bool { return &s.LocalhostTwin }, boolean()),
	entry("ports.ignore", "guest ports that are left alone",
		func(s *Settings) *[]PortRange { return &s.Ports.Ignore }, portRanges()),
	entry("ports.ignore_processes", "patterns of guest processes outside containers whose ports are left alone",
		func(s *Settings) *[]string { return &s.Ports.IgnoreProcesses }, patterns()),
	entry("ports.allow", "the only ports of this machine that are opened",
		func(s *Settings) *[]PortRange { return &s.Ports.Allow }, portRangesOrAll()),
	entry("ports.deny", "ports that are never forwarded, neither as the guest's nor as this machine's",
		func(s *Settings) *[]PortRange { return &s.Ports.Deny }, portRanges()),
	entry("ports.rules", "what becomes of single guest ports, containers and processes; the first rule that matches decides",
		func(s *Settings) *[]Rule { return &s.Ports.Rules }, rules()),
	entry("host_reach.enabled", "let guests reach this machine's loopback",
		func(s *Settings) *bool { return &s.HostReach.Enabled }, boolean()),
	entry("host_reach.allow", "the only ports of this machine's loopback that guests reach",
		func(s *Settings) *[]PortRange { return &s.HostReach.Allow }, portRangesOrAll()),
	entry("host_reach.deny", "ports of this machine's loopback that guests do not reach",
		func(s *Settings) *[]PortRange { return &s.HostReach.Deny }, portRanges()),
	entry("links", "the guests, by name and URL",
		func(s *Settings) *[]Link { return &s.Links }, links()),
	entry("limits.listeners", "listeners taken note of, for each link",
		func(s *Settings) *int { return &s.Limits.Listeners }, count(1, 200_000)),
	entry("limits.flows", "connections and UDP associations at once, for each link",
		func(s *Settings) *int { return &s.Limits.Flows }, count(1, 1_000_000)),
	entry("limits.udp_idle", "how long a UDP association stays without a datagram",
		func(s *Settings) *time.Duration { return &s.Limits.UDPIdle }, duration(time.Second, 24*time.Hour)),
	entry("limits.memory", "data in transit that may wait, for each link",
		func(s *Settings) *int64 { return &s.Limits.Memory }, size(16*mebibyte, 64*gibibyte)),
	entry("isolation.enhanced_container_isolation", "this machine is under Enhanced Container Isolation, whatever else is found",
		func(s *Settings) *bool { return &s.Isolation.EnhancedContainerIsolation }, boolean()),
}

// lookup finds a key by its name.
func lookup(name string) (key, bool) {
	for _, k := range table {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// CheckKey tells whether a key exists. The error wraps ErrUnknownKey and names
// the nearest one.
func CheckKey(name string) error {
	_, err := find(name)
	return err
}

// find is lookup with an error that names the nearest key.
func find(name string) (key, error) {
	if k, ok := lookup(name); ok {
		return k, nil
	}
	return key{}, fmt.Errorf("%q: %w", name, unknown(name, names()))
}

func names() []string {
	all := make([]string, 0, len(table))
	for _, k := range table {
		all = append(all, k.name)
	}
	return all
}

// isGroup tells whether name is what some keys begin with.
func isGroup(name string) bool {
	return slices.ContainsFunc(table, func(k key) bool { return strings.HasPrefix(k.name, name+".") })
}

// beside lists what may stand in a mapping whose keys begin with prefix.
func beside(prefix string) []string {
	var all []string
	for _, k := range table {
		if rest, ok := strings.CutPrefix(k.name, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}
