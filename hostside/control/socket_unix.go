//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SocketPath is the control socket of a home. It wraps ErrSocketPath when the
// system could not address it.
func SocketPath(home string) (string, error) {
	path := filepath.Join(home, "control.sock")
	// The terminating zero byte takes one.
	if limit := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > limit {
		return path, fmt.Errorf("control socket: %s: %w: %d bytes, the system allows %d: set %s to a shorter directory",
			path, ErrSocketPath, len(path), limit, HomeVariable)
	}
	return path, nil
}

// listen opens the control socket, replacing a stale one: the caller holds the
// home's lock, so that nobody serves it.
func listen(home string) (net.Listener, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("control socket: %s: %w: something else lies there: remove it", path, ErrSocketPath)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: remove the stale one: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

func dial(ctx context.Context, home string) (net.Conn, error) {
	path, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, notRunning(home)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %w: run the command as that user", path, ErrForbidden)
	}
	return conn, err
}

// checkPeer tells whether the other end of conn runs as our user or as root.
func checkPeer(conn net.Conn) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var uid int
	var uidErr error
	if err := raw.Control(func(fd uintptr) { uid, uidErr = peerUID(int(fd)) }); err != nil {
		return err
	}
	if uidErr != nil {
		return uidErr
	}
	if uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("peer with uid %d: %w", uid, ErrForbidden)
	}
	return nil
}
