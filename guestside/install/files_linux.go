package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// lock keeps other installs out. It is on the directory of the program itself, so
// it leaves no file and ends with the process.
func (g *guest) lock() (unlock func(), err error) {
	path := filepath.Dir(g.at(Program))
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = dir.Close()
		return nil, ErrBusy
	case err != nil:
		_ = dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = dir.Close() }, nil
}

// newName is what a file is called while it is written. Whoever holds the lock
// may overwrite what a crash has left under it.
func newName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// replace writes a file and gives it its name in one step, when it is whole and
// on the disk. It is made beside its place, so that it gets the security label
// of files there.
func replace(path string, mode fs.FileMode, content io.Reader) error {
	name := newName(path)
	// One that a crash has left may have another mode, or be a link.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = os.Remove(name)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename outlast a loss of power.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Some file systems have no such thing.
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// remove removes a file, and what a crash has left of a new one.
func remove(path string) (removed bool, err error) {
	for _, name := range []string{newName(path), path} {
		switch err := os.Remove(name); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return removed, err
		}
	}
	return removed, nil
}

// sameContent tells whether the file at path is what it would be after an
// install.
func sameContent(from, path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Whoever copied it there by hand may own it still, and could change what the
	// service runs as root; a bit such as setuid is none of ours either.
	owner := info.Sys().(*syscall.Stat_t).Uid
	if info.Mode() != 0o755 || owner != uint32(os.Geteuid()) {
		return false, nil
	}
	a, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if ended(errA) || ended(errB) {
			return ended(errA) && ended(errB), nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
	}
}

func ended(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
