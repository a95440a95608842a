package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrInUse is wrapped by the error of Listen when a process already listens.
var ErrInUse = errors.New("somebody already listens there")

// probeTimeout is how long a process may take to answer on its socket before
// we take it for a live one that is busy.
const probeTimeout = time.Second

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return tuneUnix(c), nil
}

// ListenUnix makes a socket that only this user can connect to. It replaces
// what a process that has died left behind, and nothing else. It is what Listen
// does for a link, for those who listen for something else.
func ListenUnix(ctx context.Context, path string) (*net.UnixListener, error) {
	unlock, err := lockDir(ctx, path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := bindPrivate(ctx, path)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(true)
	return l, nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !isSocket(info):
		return errors.New("a file of that name exists and is no socket; remove it or choose another path")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return ErrInUse
	case errors.Is(err, errRefused):
	case errors.Is(err, fs.ErrNotExist): // it has just gone by itself
		return nil
	default:
		return fmt.Errorf("is there somebody already? %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("left behind, but cannot be removed: %w", err)
	}
	return nil
}

// unixListener tunes what it accepts.
type unixListener struct{ *net.UnixListener }

func (l unixListener) Accept() (net.Conn, error) {
	c, err := l.UnixListener.Accept()
	if err != nil {
		return nil, err
	}
	return tuneUnix(c), nil
}

// unixBuffer is the socket's send buffer in bytes, see the package comment.
// The system may grant less.
const unixBuffer = 1 << 20

// tuneUnix enlarges the send buffer. A smaller one is slower, but works.
func tuneUnix(c net.Conn) net.Conn {
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(unixBuffer)
	}
	return c
}

var _ syscall.Conn = unixListener{}
