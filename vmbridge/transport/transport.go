package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// DialOptions of Dial. The zero value will do.
type DialOptions struct {
	// Stderr hears what the command of an exec endpoint writes to its standard
	// error, line by line, made safe to print. Its calls do not overlap.
	Stderr func(line string)
}

// ListenOptions of Listen. The zero value will do.
type ListenOptions struct {
	// ContextIDs are the vsock peers that are accepted; none stands for the
	// host alone. AnyContextID accepts all: for tests over the loopback.
	ContextIDs   []uint32
	AnyContextID bool
	// Refused hears of vsock peers that were not accepted.
	Refused func(peer net.Addr)
}

// CanDial says why e cannot be dialled on any machine, or nil.
func (e Endpoint) CanDial() error {
	switch {
	case e.scheme == "":
		return fmt.Errorf("%w: no link URL", ErrInvalid)
	case e.scheme == Stdio:
		return fmt.Errorf("%w: %s is for the agent; write exec:COMMAND to start one", ErrWrongEnd, e)
	case e.scheme == Sandbox, e.scheme == VhostUser, e.scheme == Docker, e.isPreset():
		return fmt.Errorf("%w: %s has no transport of its own", ErrWrongEnd, e)
	case e.scheme == VSock && e.cid == anyCID:
		return fmt.Errorf("%w: %s names no guest; write vsock://CID:%d", ErrWrongEnd, e, e.port)
	case e.scheme == VSock && (e.cid == hypervisorCID || e.cid == hostCID):
		return fmt.Errorf("%w: context ID %d of %s is the host; guests have 3 and more", ErrWrongEnd, e.cid, e)
	case (e.scheme == VSock || e.scheme == Hybrid || e.scheme == TCP) && e.port == 0:
		return fmt.Errorf("%w: %s names no port", ErrWrongEnd, e)
	}
	return nil
}

// CanListen says why nothing can listen on e on any machine, or nil.
func (e Endpoint) CanListen() error {
	switch e.scheme {
	case "":
		return fmt.Errorf("%w: no link URL", ErrInvalid)
	case Exec, Hybrid, HyperV:
		return fmt.Errorf("%w: %s can only be dialled", ErrWrongEnd, e)
	case Sandbox, VhostUser, Docker, Lima, Colima, PodmanMachine, WSL:
		return fmt.Errorf("%w: %s has no transport of its own", ErrWrongEnd, e)
	}
	return nil
}

// Dial connects to e. ctx bounds the dialling, not the life of the connection.
// The connection is a *net.UnixConn, *net.TCPConn or *vsock.Conn where e is of
// that kind; see RawWrite for those that are not.
func (e Endpoint) Dial(ctx context.Context, opts DialOptions) (net.Conn, error) {
	if err := e.CanDial(); err != nil {
		return nil, err
	}
	var c net.Conn
	var err error
	switch e.scheme {
	case Unix:
		c, err = dialUnix(ctx, e.path)
	case VSock:
		c, err = dialVSock(ctx, e.cid, e.port)
	case Hybrid:
		c, err = dialHybrid(ctx, e.path, e.port)
	case HyperV:
		c, err = dialHyperV(ctx, e.vm, e.port)
	case TCP:
		c, err = new(net.Dialer).DialContext(ctx, "tcp", e.hostPort())
	case Exec:
		c, err = startCommand(ctx, e.command, opts.Stderr)
	}
	if err != nil {
		return nil, e.wrap("connect", err)
	}
	return c, nil
}

// Listen listens on e. ctx bounds the preparation, not the life of the
// listener.
func (e Endpoint) Listen(ctx context.Context, opts ListenOptions) (net.Listener, error) {
	if err := e.CanListen(); err != nil {
		return nil, err
	}
	var l net.Listener
	var err error
	switch e.scheme {
	case Unix:
		var u *net.UnixListener
		if u, err = ListenUnix(ctx, e.path); err == nil {
			l = unixListener{u}
		}
	case VSock:
		l, err = listenVSock(e.cid, e.port, opts)
	case TCP:
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", e.hostPort())
	case Stdio:
		l, err = listenStdio()
	}
	if err != nil {
		return nil, e.wrap("listen on", err)
	}
	return l, nil
}

// wrap names the URL. What net.OpError would add is the same once more.
func (e Endpoint) wrap(op string, err error) error {
	var opErr *net.OpError
	if errors.As(err, &opErr) && error(opErr) == err {
		err = opErr.Err
	}
	return fmt.Errorf("%s %s: %w", op, e, err)
}
