package control

import (
	"cmp"
	"net/netip"
	"time"
)

// Status is the whole state of a daemon: vmbridge status --json.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Home    string    `json:"home"`
	Since   time.Time `json:"since"`

	// HostNetworking is "on", "off" or "blocked".
	HostNetworking string `json:"host_networking"`
	// HostNetworkingReason says why it is blocked.
	HostNetworkingReason string `json:"host_networking_reason,omitempty"`

	// Isolation is "on", "off" or "unknown", and Evidence what tells so.
	Isolation string   `json:"isolation"`
	Evidence  []string `json:"evidence"`

	// Warnings are what works against the bridge without stopping it, mistakes
	// in the settings among them.
	Warnings []string `json:"warnings"`

	Links  []Link `json:"links"`
	Counts Counts `json:"counts"`
}

// Values of Status.HostNetworking.
const (
	On      = "on"
	Off     = "off"
	Blocked = "blocked"
)

// Unknown is the value of Status.Isolation for want of evidence; the others
// are On and Off.
const Unknown = "unknown"

// Link is one guest and how it is reached.
type Link struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// State is "connecting", "up", "refused" or "down".
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`

	// What the agent told; empty until the link was up once.
	AgentVersion string  `json:"agent_version"`
	Kernel       string  `json:"kernel"`
	Detection    Feature `json:"detection"`  // "ebpf", "poll" or "unavailable"
	HostReach    Feature `json:"host_reach"` // "on", "off" or "unavailable"
	// DroppedListeners counts the listeners beyond the agent's limit.
	DroppedListeners int `json:"dropped_listeners,omitempty"`
	// Carried has an entry for each product that forwards ports of this guest.
	Carried []Carried `json:"carried,omitempty"`
}

// Carried is what a product forwards by itself.
type Carried struct {
	Product string `json:"product"`
	VM      string `json:"vm,omitempty"` // its name
	Ports   int    `json:"ports"`
	// Switch is the product's own setting that ends it; empty where it has none.
	Switch string `json:"switch,omitempty"`
}

// Values of Link.State.
const (
	LinkConnecting = "connecting"
	LinkUp         = "up"
	LinkRefused    = "refused"
	LinkDown       = "down"
)

// Feature is a state with the reason for it where it is degraded.
type Feature struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Counts sums up the ports, by state, and their flows.
type Counts struct {
	Ports    int   `json:"ports"`
	Open     int   `json:"open"`
	Conflict int   `json:"conflict"`
	Carried  int   `json:"carried"`
	Denied   int   `json:"denied"`
	Ignored  int   `json:"ignored"`
	Failed   int   `json:"failed"`
	Flows    int64 `json:"flows"`
	// ReachFlows are those that guests have opened to this machine's loopback.
	ReachFlows int64 `json:"reach_flows"`
}

// ReachedPort is a port of this machine's loopback that a guest has used.
type ReachedPort struct {
	Link     string `json:"link"`
	Protocol string `json:"protocol"` // "tcp" or "udp"
	Port     uint16 `json:"port"`
	// State of the last attempt: "connecting", "open", "refused", "denied" or
	// "failed".
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	Flows    int64     `json:"flows"`
	BytesIn  uint64    `json:"bytes_in"`  // from the guest's clients to this machine
	BytesOut uint64    `json:"bytes_out"` // from this machine to the guest's clients
	Since    time.Time `json:"since"`
	LastUse  time.Time `json:"last_use"`
}

// Port is one listener of a guest and what became of it on the host.
type Port struct {
	Protocol string  `json:"protocol"` // "tcp" or "udp"
	Guest    Address `json:"guest"`
	// Host has one entry for each host address that the scope asks for.
	Host []HostPort `json:"host"`
	// State is the worst of Host's, or the one of the whole listener where
	// policy left it out; Reason belongs to it.
	State  string `json:"state"`
	Reason string `json:"reason"`
	Owner  Owner  `json:"owner"`
	Link   string `json:"link"`

	Flows    int64     `json:"flows"`
	BytesIn  uint64    `json:"bytes_in"`  // from the host's clients to the guest
	BytesOut uint64    `json:"bytes_out"` // from the guest to the host's clients
	Since    time.Time `json:"since"`
}

// Address is where a guest's socket listens.
type Address struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	// DualStack is set for a socket on :: that accepts IPv4 as well.
	DualStack bool `json:"dual_stack,omitempty"`
}

// HostPort is one address of the host and the state of its forward.
type HostPort struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	State   string     `json:"state"`
	Reason  string     `json:"reason"`
	// Alias marks the ::1 that accompanies an IPv4 listener because localhost
	// means ::1 first; it is opened when it is free, and never a conflict.
	Alias bool `json:"alias,omitempty"`
}

// Values of Port.State and HostPort.State.
const (
	PortOpen     = "open"
	PortConflict = "conflict"
	PortCarried  = "carried"
	PortDenied   = "denied"
	PortIgnored  = "ignored"
	PortFailed   = "failed"
)

// Owner says whose socket it is, as far as the guest could tell.
type Owner struct {
	Container string `json:"container,omitempty"`
	Image     string `json:"image,omitempty"`
	Process   string `json:"process,omitempty"`
	PID       int    `json:"pid,omitempty"` // in the guest
}

// Sandbox tells where the throw-away guest of a link lives.
type Sandbox struct {
	Link  string `json:"link"`
	NetNS string `json:"netns"` // path of its network namespace
}

// Settings is what applies, and where it comes from.
type Settings struct {
	// Path is the user's file, and Policy the administrator's; neither need exist.
	Path   string `json:"path"`
	Policy string `json:"policy"`
	// Problems are the mistakes in these files, where what was good last applies,
	// and in the environment.
	Problems []string  `json:"problems"`
	Values   []Setting `json:"values"`
}

// Setting is one effective value. Value and Default are in the form that Set
// takes.
type Setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
	// Origin is "default", "file", "environment", "flag" or "policy", and Place the
	// file and line, the variable or the flag.
	Origin string `json:"origin"`
	Place  string `json:"place,omitempty"`
	Locked bool   `json:"locked"` // by the administrator
	Help   string `json:"help,omitempty"`
}

// Version is what answers on the control socket.
type Version struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// Count sums up ports.
func Count(ports []Port, reached []ReachedPort) Counts {
	c := Counts{Ports: len(ports)}
	for i := range reached {
		c.ReachFlows += reached[i].Flows
	}
	for i := range ports {
		c.Flows += ports[i].Flows
		switch ports[i].State {
		case PortOpen:
			c.Open++
		case PortConflict:
			c.Conflict++
		case PortCarried:
			c.Carried++
		case PortDenied:
			c.Denied++
		case PortIgnored:
			c.Ignored++
		case PortFailed:
			c.Failed++
		}
	}
	return c
}

// Compare orders ports as listings show them: by link, port, protocol and
// address.
func Compare(a, b Port) int {
	return cmp.Or(
		cmp.Compare(a.Link, b.Link),
		cmp.Compare(a.Guest.Port, b.Guest.Port),
		cmp.Compare(a.Protocol, b.Protocol),
		a.Guest.Address.Compare(b.Guest.Address),
	)
}
