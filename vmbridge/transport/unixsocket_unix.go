//go:build unix

package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errRefused is what connecting to a socket answers when nobody listens.
const errRefused = unix.ECONNREFUSED

// lockRetry is how often lockDir tries again. Others hold such locks for the
// time of a few system calls.
const lockRetry = 5 * time.Millisecond

func isSocket(info fs.FileInfo) bool { return info.Mode()&fs.ModeSocket != 0 }

// lockDir keeps other processes of ours from replacing a socket of the same
// directory at the same time: both would find the old one stale, and the
// second would remove the first one's new one. The lock is on the directory
// itself, so it leaves no file.
func lockDir(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return func() {}, nil // a directory may let us write but not read
		}
		return nil, err
	}
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EBADF):
			// Where there are no locks on directories we go without.
			return func() { _ = dir.Close() }, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			_ = dir.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			_ = dir.Close()
			return nil, fmt.Errorf("directory locked by another process: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// bindPrivate binds, makes the socket 0600 and only then listens: until it
// listens nobody can connect, so that at no time somebody else could.
func bindPrivate(_ context.Context, path string) (_ *net.UnixListener, err error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileListener has a duplicate
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}
