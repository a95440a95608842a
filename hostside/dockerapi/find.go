package dockerapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// pingTimeout bounds the question whether an engine is there. A VM that sleeps takes
// its time, one that hangs takes forever.
const pingTimeout = 3 * time.Second

// maxText bounds what is shown of an engine's words, in bytes.
const maxText = 512

// Environment is where the command docker looks. The zero value is none.
type Environment struct {
	Getenv func(string) string
	Home   string // the user's home directory
	OS     string // as runtime.GOOS
	UID    int    // the user's number, -1 on Windows
}

// System is this process's environment.
func System() Environment {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // what lies there is then passed over
	}
	return Environment{Getenv: os.Getenv, Home: home, OS: runtime.GOOS, UID: os.Getuid()}
}

// Found is an engine that answered.
type Found struct {
	// Client is to be closed by whoever called Find.
	Client *client.Client
	Host   string // the URL of its API
	Source string // who named it, such as "DOCKER_HOST"
	// Passed is what was looked at before and not taken, a line each.
	Passed []string
}

// NotFoundError says that no engine answers.
type NotFoundError struct {
	Reason string
	Passed []string // as in Found
}

func (e *NotFoundError) Error() string { return e.Reason }

// Find finds the engine and asks it whether it is there. The name of a context
// stands before all else; without one the environment decides.
func Find(ctx context.Context, env Environment, contextName string) (*Found, error) {
	list, passed, err := env.candidates(contextName)
	if err != nil {
		return nil, &NotFoundError{Reason: clean(err.Error()), Passed: passed}
	}
	var named string // what a user named, and does not answer
	for _, c := range list {
		cli, err := c.open(ctx)
		if err == nil {
			return &Found{Client: cli, Host: c.host, Source: c.source, Passed: passed}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		line := clean(fmt.Sprintf("%s (%s): %s", c.source, c.host, reason(err)))
		passed = append(passed, line)
		if c.named {
			named = line
		}
	}
	if named != "" {
		return nil, &NotFoundError{Reason: "the engine does not answer: " + named, Passed: passed}
	}
	return nil, &NotFoundError{
		Reason: "no container engine answers here: start it, or name it with docker://CONTEXT or DOCKER_HOST",
		Passed: passed,
	}
}

// open makes a client and asks whether the engine is there.
func (c candidate) open(ctx context.Context) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if path, ok := strings.CutPrefix(c.host, "unix://"); ok {
		// The client would keep to itself why it cannot connect.
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		_ = conn.Close() // nothing was written
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	cli, err := client.New(append(opts, client.WithUserAgent("vmbridge"))...)
	if err != nil {
		return nil, err
	}
	if _, err := cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it does not answer within %s", pingTimeout)
		}
		return nil, errors.Join(err, cli.Close())
	}
	return cli, nil
}

// reason puts into few words why an engine was not taken.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is none"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: be of the group that may use it"
	case errors.As(err, &dns):
		return dns.Error()
	case cerrdefs.IsInvalidArgument(err):
		return strings.TrimPrefix(err.Error(), "Error response from daemon: ") + ": upgrade the engine"
	}
	return err.Error()
}

// clean makes one line of an engine's words.
func clean(s string) string {
	return message.Clean(strings.Join(strings.Fields(s), " "), maxText)
}
