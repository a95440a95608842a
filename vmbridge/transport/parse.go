package transport

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"unicode"
)

var (
	// ErrInvalid is wrapped by the errors of Parse for URLs that are wrong.
	ErrInvalid = errors.New("invalid link URL")
	// ErrUnsupported is wrapped by errors about transports that this build, or
	// this operating system, does not have.
	ErrUnsupported = errors.New("not supported by this build")
	// ErrWrongEnd is wrapped by errors about endpoints that cannot be dialled,
	// or cannot be listened on.
	ErrWrongEnd = errors.New("wrong end of a link")
)

// forms is what the errors of Parse suggest.
const forms = "unix:///PATH, vsock://CID:PORT, hybrid:///PATH?port=N, vhost-user:///PATH?cid=N, " +
	"hyperv://VMID:PORT, docker://, lima://NAME, colima://PROFILE, podman-machine://NAME, wsl://DISTRO, " +
	"tcp://HOST:PORT, exec:COMMAND, sandbox:"

// Parse reads a link URL. What follows the scheme is taken literally: there is
// no percent-encoding. An error is one line that says what is wrong and how to
// write it.
func Parse(s string) (Endpoint, error) {
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return Endpoint{}, fmt.Errorf("%w %q: control character at byte %d", ErrInvalid, s, i)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Endpoint{}, fmt.Errorf("%w %q: no scheme; write one of %s", ErrInvalid, s, forms)
	}
	var e Endpoint
	var problem string
	switch Scheme(scheme) {
	case Unix:
		e, problem = parseUnix(rest)
	case VSock:
		e, problem = parseVSock(rest)
	case Hybrid:
		e, problem = parseHybrid(rest)
	case VhostUser:
		e, problem = parseVhostUser(rest)
	case HyperV:
		e, problem = parseHyperV(rest)
	case TCP:
		e, problem = parseTCP(rest)
	case Exec:
		e.command = strings.TrimSpace(rest)
		if e.command == "" {
			problem = "no command; write exec:COMMAND ARGS, such as exec:ssh vm vmbridge-guest serve --stdio"
		}
	case Docker:
		e.host, problem = dockerContext(rest)
	case Lima, Colima, PodmanMachine, WSL:
		e.host, problem = parsePreset(Scheme(scheme), rest)
	case Stdio, Sandbox:
		if rest != "" {
			problem = "nothing may follow; write " + scheme + ":"
		}
	default:
		problem = fmt.Sprintf("unknown scheme %q; write one of %s", scheme, forms)
	}
	if problem != "" {
		return Endpoint{}, fmt.Errorf("%w %q: %s", ErrInvalid, s, problem)
	}
	e.scheme = Scheme(scheme)
	return e, nil
}

// String gives back what Parse reads.
func (e Endpoint) String() string {
	switch e.scheme {
	case Unix:
		return e.pathURL()
	case Hybrid:
		return fmt.Sprintf("%s?port=%d", e.pathURL(), e.port)
	case VhostUser:
		s := fmt.Sprintf("%s?cid=%d", e.pathURL(), e.cid)
		if e.port != defaultPort {
			s += fmt.Sprintf("&port=%d", e.port)
		}
		return s
	case VSock:
		if e.cid == anyCID {
			return fmt.Sprintf("vsock://:%d", e.port)
		}
		return fmt.Sprintf("vsock://%d:%d", e.cid, e.port)
	case HyperV:
		return fmt.Sprintf("hyperv://%s:%d", e.vm, e.port)
	case TCP:
		return "tcp://" + e.hostPort()
	case Exec:
		return "exec:" + e.command
	case Docker:
		return "docker://" + e.host
	case Lima, Colima, PodmanMachine, WSL:
		return string(e.scheme) + "://" + e.host
	case "":
		return ""
	}
	return string(e.scheme) + ":"
}

func (e Endpoint) pathURL() string {
	if !strings.HasPrefix(e.path, "/") { // C:\...
		return string(e.scheme) + ":///" + e.path
	}
	return string(e.scheme) + "://" + e.path
}

func (e Endpoint) hostPort() string {
	return net.JoinHostPort(e.host, strconv.FormatUint(uint64(e.port), 10))
}

// MaxSocketPath is the longest path of a unix socket on this system, in bytes:
// the size of sun_path less the final zero.
func MaxSocketPath() int {
	switch runtime.GOOS {
	case "linux", "windows":
		return 107
	}
	return 103 // macOS and the BSDs
}

func parseUnix(rest string) (e Endpoint, problem string) {
	e.path, problem = socketPath(rest, "unix:///PATH", "")
	return e, problem
}

func parseVSock(rest string) (e Endpoint, problem string) {
	const form = "write vsock://CID:PORT (vsock://:PORT to listen)"
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return e, form
	}
	cid, port, ok := strings.Cut(authority, ":")
	if !ok {
		return e, "no port; " + form
	}
	e.cid = anyCID
	if cid != "" {
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil || n == anyCID {
			return e, fmt.Sprintf("the context ID %q is not a number from 0 to %d; %s", cid, uint32(anyCID)-1, form)
		}
		e.cid = uint32(n)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil || n == anyPort {
		return e, fmt.Sprintf("the port %q is not a number from 0 to %d; %s", port, uint32(anyPort)-1, form)
	}
	e.port = uint32(n)
	return e, ""
}

func parseTCP(rest string) (e Endpoint, problem string) {
	const form = "write tcp://HOST:PORT, an IPv6 address in brackets"
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return e, form
	}
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		var bad *net.AddrError
		if errors.As(err, &bad) {
			return e, bad.Err + "; " + form
		}
		return e, form
	}
	if host == "" {
		return e, "no host; write tcp://HOST:PORT (tcp://0.0.0.0:PORT to listen on every address)"
	}
	if strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("/?#@[]", r) }) {
		return e, fmt.Sprintf("%q is not a host; %s", host, form)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return e, fmt.Sprintf("the port %q is not a number from 0 to 65535; %s", port, form)
	}
	return Endpoint{host: host, port: uint32(n)}, ""
}
