package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

// Protocol is the transport protocol of a listener: TCP or UDP.
type Protocol string

// The protocols that are forwarded. MPTCP listeners count as TCP.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Listener is a guest socket that waits for peers. Sockets that share a Key
// (SO_REUSEPORT groups, forked servers) are one Listener.
type Listener struct {
	Key
	// Ephemeral marks a UDP port that the kernel chose: a client, unless a rule
	// of the host says otherwise.
	Ephemeral bool  `json:"ephemeral,omitempty"`
	Owner     Owner `json:"owner"`
}

// Key names a listener within one guest.
type Key struct {
	Protocol Protocol `json:"protocol"`
	// Address is the bound address. IPv4-mapped addresses are reported as IPv4.
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	// DualStack is set for a socket bound to :: that accepts IPv4 as well.
	DualStack bool `json:"dual_stack,omitempty"`
}

// AddrPort is the bound address and port.
func (k Key) AddrPort() netip.AddrPort { return netip.AddrPortFrom(k.Address, k.Port) }

// String gives the form that logs use: "tcp 0.0.0.0:8000".
func (k Key) String() string {
	s := string(k.Protocol) + " " + k.AddrPort().String()
	if k.DualStack {
		s += " (dual-stack)"
	}
	return s
}

// Owner says whose socket a listener is, as far as the guest could tell.
type Owner struct {
	Container   string `json:"container,omitempty"`    // name, without a leading slash
	ContainerID string `json:"container_id,omitempty"` // full id
	Image       string `json:"image,omitempty"`
	Process     string `json:"process,omitempty"` // the kernel's comm: at most 15 bytes
	PID         int    `json:"pid,omitempty"`     // in the agent's pid namespace
}

// Listeners reports what listens in the guest.
type Listeners struct {
	// Reset starts a snapshot: what was reported before is void.
	Reset  bool       `json:"reset,omitempty"`
	Add    []Listener `json:"add,omitempty"`
	Remove []Key      `json:"remove,omitempty"`
	// More says that the snapshot goes on in the next message.
	More bool `json:"more,omitempty"`
	// Dropped counts the listeners beyond the agent's limit, which are not
	// reported.
	Dropped int `json:"dropped,omitempty"`
}

// MaxListenersPerMessage bounds Add and Remove of one Listeners message, so
// that it fits a control frame.
const MaxListenersPerMessage = 512

// Agent describes the agent and the kernel that it found.
type Agent struct {
	Version   string  `json:"version"`
	Kernel    string  `json:"kernel"`
	Detection Feature `json:"detection"`  // State "ebpf", "poll" or "unavailable"
	HostReach Feature `json:"host_reach"` // State is one of the constants below
	// Isolation is nil from an agent that does not look for it.
	Isolation *Isolation `json:"isolation,omitempty"`
}

// States of Agent.HostReach.
const (
	HostReachOn          = "on"
	HostReachOff         = "off"
	HostReachUnavailable = "unavailable" // the reason names what the guest lacks
)

// Host says what the host wants of the agent.
type Host struct {
	Version string `json:"version"`
	// HostReach says that processes of the guest may reach the host's loopback.
	HostReach bool `json:"host_reach"`
	// Log asks for the agent's log.
	Log bool `json:"log,omitempty"`
	// UDPIdleMilliseconds is how long the guest keeps the association of a UDP client
	// that neither sends nor receives. 0 leaves it to the agent.
	UDPIdleMilliseconds int `json:"udp_idle_milliseconds,omitempty"`
}

// Feature is a state with the reason for it where it is degraded.
type Feature struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Message is the envelope: exactly one field is set. A message of a kind that
// this version does not know has none set, and is ignored.
type Message struct {
	Listeners *Listeners `json:"listeners,omitempty"`
	Agent     *Agent     `json:"agent,omitempty"`
	Host      *Host      `json:"host,omitempty"`
	Log       *Log       `json:"log,omitempty"`
}

// ErrInvalid is wrapped by every error of Decode.
var ErrInvalid = errors.New("invalid control message")

// Limits of strings that a peer sends, in bytes.
const (
	maxName   = 255 // container, image and process names, versions
	maxReason = 1024

	// maxIdleMilliseconds bounds the idle time that a host asks for: a day.
	maxIdleMilliseconds = 24 * 60 * 60 * 1000
)

// Encode gives the JSON form of m.
func Encode(m Message) ([]byte, error) { return json.Marshal(m) }

// Decode reads and checks one message; its strings are safe to print. Errors
// wrap ErrInvalid.
func Decode(data []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(data, &m); err != nil {
		return Message{}, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if l := m.Listeners; l != nil {
		if len(l.Add) > MaxListenersPerMessage || len(l.Remove) > MaxListenersPerMessage {
			return Message{}, fmt.Errorf("%w: more than %d listeners", ErrInvalid, MaxListenersPerMessage)
		}
		for i := range l.Add {
			if err := l.Add[i].check(); err != nil {
				return Message{}, err
			}
			l.Add[i].Owner.clean()
		}
		for i := range l.Remove {
			if err := l.Remove[i].check(); err != nil {
				return Message{}, err
			}
		}
		l.Dropped = max(l.Dropped, 0)
	}
	if a := m.Agent; a != nil {
		a.Version = Clean(a.Version, maxName)
		a.Kernel = Clean(a.Kernel, maxName)
		a.Detection.clean()
		a.HostReach.clean()
		if a.Isolation != nil {
			a.Isolation.clean()
		}
	}
	if h := m.Host; h != nil {
		h.Version = Clean(h.Version, maxName)
		h.UDPIdleMilliseconds = min(max(h.UDPIdleMilliseconds, 0), maxIdleMilliseconds)
	}
	if m.Log != nil {
		m.Log.Clean()
	}
	return m, nil
}

func (k Key) check() error {
	switch {
	case k.Protocol != TCP && k.Protocol != UDP:
		return fmt.Errorf("%w: protocol %q", ErrInvalid, Clean(string(k.Protocol), 16))
	case !k.Address.IsValid():
		return fmt.Errorf("%w: a listener without address", ErrInvalid)
	case k.Address.Is4In6():
		return fmt.Errorf("%w: IPv4-mapped address %s", ErrInvalid, Clean(k.Address.String(), 64))
	case k.Port == 0:
		return fmt.Errorf("%w: port 0", ErrInvalid)
	case k.DualStack && k.Address != netip.IPv6Unspecified():
		return fmt.Errorf("%w: dual-stack on %s", ErrInvalid, Clean(k.Address.String(), 64))
	case k.Address.Zone() != Clean(k.Address.Zone(), 15):
		return fmt.Errorf("%w: zone of an address", ErrInvalid)
	}
	return nil
}

func (o *Owner) clean() {
	o.Container = Clean(o.Container, maxName)
	o.ContainerID = Clean(o.ContainerID, maxName)
	o.Image = Clean(o.Image, maxName)
	o.Process = Clean(o.Process, maxName)
	o.PID = max(o.PID, 0)
}

func (f *Feature) clean() {
	f.State = Clean(f.State, maxName)
	f.Reason = Clean(f.Reason, maxReason)
}
