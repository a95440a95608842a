package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
)

// Config says which guest to start.
type Config struct {
	// Name is the link's name, and Home the daemon's home: together they name
	// the namespace. The agent's socket is HOME/sandbox/NAME.sock.
	Name string
	Home string
	// KeyFile holds the link's key.
	KeyFile string
	// AgentPath is the vmbridge-guest program; empty means the one beside our
	// own executable, else the one in $PATH.
	AgentPath string
	// AgentArgs are further arguments of vmbridge-guest serve.
	AgentArgs []string
	// Logger takes what the agent logs, and what happens to it.
	Logger *logrus.Logger
}

var (
	// ErrNotSupported says that this system has no network namespaces.
	ErrNotSupported = errors.New("the sandbox guest needs Linux: link a VM with --link NAME=URL")
	// ErrNotPermitted says that the process may not make network namespaces.
	ErrNotPermitted = errors.New("a network namespace needs root: run as root (sudo), or link a VM with --link NAME=URL")
	// ErrNoAgent says that there is no vmbridge-guest program.
	ErrNoAgent = errors.New("vmbridge-guest is neither beside this program nor in $PATH: build it with make build")
	// ErrSocketPath says that the agent's socket could not be addressed.
	ErrSocketPath = errors.New("socket path too long")
)

// Sandbox is a running guest.
type Sandbox struct {
	netNS  string
	socket string
	guest  *guest
}

// Start makes the namespace, or adopts the one that is there, and starts the
// agent. The guest runs until ctx ends or Close is called; Close is due in
// either case.
func Start(ctx context.Context, config Config) (*Sandbox, error) {
	s, err := start(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	return s, nil
}

// URL is where the link finds the agent.
func (s *Sandbox) URL() string { return "unix://" + s.socket }

// NetNS is the path of the guest's network namespace.
func (s *Sandbox) NetNS() string { return s.netNS }

// Close ends the agent and removes the namespace's name. It may be called
// again.
func (s *Sandbox) Close() error { return s.guest.close() }

// Exec replaces this process by a command inside the network namespace at
// path. It returns only when that fails.
func Exec(netNS string, args, env []string) error { return execIn(netNS, args, env) }

// nsName is the namespace's name: short, and distinct for every link of every
// home, however long these are.
func nsName(home, name string) string {
	sum := sha256.Sum256([]byte(home + "\x00" + name))
	return "vmbridge-" + hex.EncodeToString(sum[:6])
}

func socketPath(home, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("%q cannot name a sandbox", name)
	}
	path := filepath.Join(home, "sandbox", name+".sock")
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("%w: %s: %d bytes, the system allows %d: choose a shorter home or link name",
			ErrSocketPath, path, len(path), maxSocketPath)
	}
	return path, nil
}

// maxSocketPath is what Linux's sockaddr_un takes, less the zero byte at its end.
const maxSocketPath = 107
