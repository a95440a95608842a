package transport

import (
	"net/netip"
	"runtime"
)

// Scheme is the part of a link URL before the first colon.
type Scheme string

// The schemes of link URLs.
const (
	Unix    Scheme = "unix"
	VSock   Scheme = "vsock"
	TCP     Scheme = "tcp"
	Exec    Scheme = "exec"
	Stdio   Scheme = "stdio"
	Sandbox Scheme = "sandbox" // whoever makes the sandbox knows how to reach it
)

// Endpoint is a checked link URL. Endpoints can be compared; the zero Endpoint
// is none.
type Endpoint struct {
	scheme Scheme
	path   string // unix: the socket
	host   string // tcp
	port   uint32 // tcp, vsock
	cid    uint32 // vsock: a context ID, or anyCID
	// command is what exec runs, not yet split.
	command string
}

// Scheme says which kind of transport e names.
func (e Endpoint) Scheme() Scheme { return e.scheme }

// Path is the socket's path of a unix endpoint, and empty elsewhere.
func (e Endpoint) Path() string { return e.path }

// MaxConns is how many connections a link over e may consist of.
func (e Endpoint) MaxConns() int {
	switch e.scheme {
	case Exec, Stdio:
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
func (e Endpoint) NeedsKey() bool { return e.scheme != Exec && e.scheme != Stdio }

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
