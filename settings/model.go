package settings

import (
	"path/filepath"
	"runtime"
	"time"
)

// FileName is the settings file's name in the home.
const FileName = "settings.yaml"

// Path is the settings file of a home.
func Path(home string) string { return filepath.Join(home, FileName) }

// Settings is what all layers together come to. Its lists are not nil, but for
// the two where that has a meaning.
type Settings struct {
	HostNetworking HostNetworking
	Exposure       Exposure
	// LocalhostTwin also opens ::1 for IPv4 listeners.
	LocalhostTwin bool
	Ports         Ports
	HostReach     HostReach
	Links         []Link
	Limits        Limits
	Isolation     Isolation
}

// HostNetworking is the toggle.
type HostNetworking struct {
	Enabled bool
}

// Exposure says how widely forwards listen on the host.
type Exposure string

const (
	// Mirror opens on the host what the guest's socket is bound to.
	Mirror Exposure = "mirror"
	// Loopback narrows everything to the host's loopback.
	Loopback Exposure = "loopback"
)

// Ports is which of the guests' ports are forwarded, and where to.
type Ports struct {
	// Ignore lists the guests' ports that are left alone.
	Ignore []PortRange
	// IgnoreProcesses are patterns (path.Match) of the names of processes
	// outside containers whose listeners are left alone.
	IgnoreProcesses []string
	// Allow lists the ports of this machine that may be opened. Nil means every
	// port; an empty list means none.
	Allow []PortRange
	// Deny lists the ports that are never forwarded, neither as the guest's nor
	// as this machine's.
	Deny []PortRange
	// Rules are tried in order before Ignore and IgnoreProcesses; the first
	// that matches a listener decides.
	Rules []Rule
}

// HostReach is what guests may reach on the host's loopback.
type HostReach struct {
	// Enabled lets guests reach it at all. Like everything else it waits for
	// HostNetworking.
	Enabled bool
	// Allow lists the ports that guests may reach. Nil means every port; an
	// empty list means none.
	Allow []PortRange
	// Deny lists the ports that they may not, whatever Allow says.
	Deny []PortRange
}

// Limits bounds what one link may take of this machine.
type Limits struct {
	Listeners int // of the guest, taken note of
	Flows     int // TCP connections and UDP associations at once
	// UDPIdle is how long a UDP association stays without a datagram.
	UDPIdle time.Duration
	// Memory is how many bytes of data in transit may wait.
	Memory int64
}

// Isolation is what the user or the administrator knows about it.
type Isolation struct {
	// EnhancedContainerIsolation says that this machine is under it, whatever
	// else is found. False says nothing.
	EnhancedContainerIsolation bool
}

// Default is what applies where nothing else says anything.
func Default() Settings {
	s := Settings{
		Exposure: Mirror,
		// localhost means ::1 first on macOS and Windows.
		LocalhostTwin: runtime.GOOS != "linux",
		Ports: Ports{
			// VXLAN (8472 is Linux's own number, and flannel's): what joins the
			// engines of a cluster, of which the kernel holds the socket.
			Ignore: []PortRange{{"tcp", 22, 22}, {"udp", 4789, 4789}, {"udp", 8472, 8472}},
			// Not among them: docker-proxy, which stands for a container, and
			// systemd itself, which holds the sockets of services that it
			// activates.
			IgnoreProcesses: []string{"dockerd", "containerd", "kubelet", "sshd", "sshd-session",
				"systemd-*", "chronyd", "rpcbind", "dnsmasq"},
			Deny:  []PortRange{},
			Rules: []Rule{},
		},
		HostReach: HostReach{Enabled: true, Deny: []PortRange{}},
		Links:     []Link{},
		Limits:    Limits{Listeners: 20000, Flows: 32768, UDPIdle: 180 * time.Second, Memory: 256 * mebibyte},
	}
	// The services that belong to the machine they run on: forwarding 68/udp
	// takes the host's DHCP client down, 53 its resolver.
	for _, port := range []uint16{53, 67, 68, 111, 123, 323, 546, 547, 5353, 5355} {
		s.Ports.Ignore = append(s.Ports.Ignore, PortRange{First: port, Last: port})
	}
	return s
}
