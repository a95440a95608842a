package transport

import (
	"net/netip"
	"runtime"
)

// Scheme is the part of a link URL before the first colon.
type Scheme string

// The schemes of link URLs.
const (
	Unix      Scheme = "unix"
	VSock     Scheme = "vsock"
	Hybrid    Scheme = "hybrid"
	HyperV    Scheme = "hyperv"
	TCP       Scheme = "tcp"
	Exec      Scheme = "exec"
	Stdio     Scheme = "stdio"
	VhostUser Scheme = "vhost-user" // whoever keeps the device dials its HybridEndpoint
	Sandbox   Scheme = "sandbox"    // whoever makes the sandbox knows how to reach it
	Docker    Scheme = "docker"     // whoever starts the agent has both ends of its stdio

	// Whoever dials these sends the agent through their Way first.
	Lima          Scheme = "lima"
	Colima        Scheme = "colima"
	PodmanMachine Scheme = "podman-machine"
	WSL           Scheme = "wsl"
)

// Endpoint is a checked link URL. Endpoints can be compared; the zero Endpoint
// is none.
type Endpoint struct {
	scheme Scheme
	path   string // unix, hybrid, vhost-user: the socket
	host   string // tcp; docker: a context; lima, colima, podman-machine, wsl: the VM's name; or empty
	port   uint32 // tcp, vsock, hybrid, vhost-user, hyperv
	vm     string // hyperv: the VM's GUID, in lower case
	cid    uint32 // vsock, vhost-user: a context ID; vsock: or anyCID
	// command is what exec runs, not yet split.
	command string
}

// Scheme says which kind of transport e names.
func (e Endpoint) Scheme() Scheme { return e.scheme }

// Path is the socket's path of a unix, hybrid or vhost-user endpoint, and empty
// elsewhere. That of vhost-user is for the hypervisor, see HybridEndpoint.
func (e Endpoint) Path() string { return e.path }

// CID is the guest's context ID of a vhost-user endpoint, and 0 elsewhere.
func (e Endpoint) CID() uint32 {
	if e.scheme != VhostUser {
		return 0
	}
	return e.cid
}

// DockerContext is the context that a docker endpoint names, and empty where it
// leaves the choice to the command docker's rules, and elsewhere.
func (e Endpoint) DockerContext() string {
	if e.scheme != Docker {
		return ""
	}
	return e.host
}

// VM is the GUID of a hyperv endpoint's virtual machine, in lower case and without
// braces, and empty elsewhere.
func (e Endpoint) VM() string { return e.vm }

// HybridEndpoint is where the device of a vhost-user endpoint is dialled, and no
// endpoint elsewhere.
func (e Endpoint) HybridEndpoint() Endpoint {
	if e.scheme != VhostUser {
		return Endpoint{}
	}
	return Endpoint{scheme: Hybrid, path: e.path + hybridSuffix, port: e.port}
}

// MaxConns is how many connections a link over e may consist of.
func (e Endpoint) MaxConns() int {
	switch e.scheme {
	case Exec, Stdio, Docker, Lima, Colima, PodmanMachine, WSL:
		return 1 // each would be another agent
	}
	// More connections than cores do not carry more.
	return min(runtime.NumCPU(), maxConns)
}

// maxConns keeps large machines from holding many idle connections per guest.
const maxConns = 8

// NeedsKey says whether both ends have to prove that they hold the link key.
// Whoever holds the ends of a pair of pipes has started, or was started by, the
// other side.
func (e Endpoint) NeedsKey() bool {
	switch e.scheme {
	case Exec, Stdio, Docker, Lima, Colima, PodmanMachine, WSL:
		return false
	}
	return true
}

// Warning is one line that a user should read before using e, or empty.
func (e Endpoint) Warning() string {
	if e.scheme != TCP || e.host == "localhost" {
		return ""
	}
	if a, err := netip.ParseAddr(e.host); err == nil && a.IsLoopback() {
		return ""
	}
	return e.String() + " is authenticated but not encrypted: use it only on a network that you trust"
}
