//go:build unix

package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may have, as in Linux.
const maxLinks = 40

// errLinks is what the kernel says of a path with more of them.
var errLinks error = unix.ELOOP

// open opens the file at an absolute path, having judged it and its way.
func open(path string) (f *os.File, done func(), err error) {
	w := walk{links: maxLinks}
	defer w.close()
	if err := w.root(); err != nil {
		return nil, nil, err
	}
	f, err = w.to(path)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { f.Close() }, nil
}

// walk is on the way to a file. It holds one directory open, where it stands.
type walk struct {
	dir   *os.File // its name is the path without links
	links int      // how many more may be followed
}

func (w *walk) close() {
	if w.dir != nil {
		w.dir.Close()
	}
}

// root starts at the root of the file system.
func (w *walk) root() error { return w.enter(unix.AT_FDCWD, "/", "/") }

// enter opens and judges a directory, and stands there.
func (w *walk) enter(parent int, name, path string) error {
	fd, err := openat(parent, name, directoryFlags)
	if err != nil {
		return wrap("open", path, err)
	}
	w.close()
	w.dir = os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap("stat", path, err)
	}
	return judge(fd, path, &st)
}

// to walks a path from where the walk stands, and opens the file at its end.
func (w *walk) to(path string) (*os.File, error) {
	names := split(path)
	for len(names) > 0 {
		name, rest := names[0], names[1:]
		at := filepath.Join(w.dir.Name(), name)
		fd := int(w.dir.Fd())
		if name == ".." {
			// The directory above has been judged, but only by this way of
			// opening it again is it surely the one that is there now.
			if err := w.enter(fd, "..", filepath.Dir(w.dir.Name())); err != nil {
				return nil, err
			}
			names = rest
			continue
		}
		var st unix.Stat_t
		if err := fstatat(fd, name, &st); err != nil {
			return nil, wrap("open", at, err)
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := w.readLink(fd, name, at, &st)
			if err != nil {
				return nil, err
			}
			if filepath.IsAbs(target) {
				if err := w.root(); err != nil {
					return nil, err
				}
			}
			names = append(split(target), rest...)
		case len(rest) > 0:
			if err := w.enter(fd, name, at); err != nil {
				return nil, err
			}
			names = rest
		default:
			return w.file(fd, name, at)
		}
	}
	return nil, wrap("open", path, errNotRegular)
}

// readLink reads a symbolic link. Its mode says nothing, and nobody can write
// it; but in a directory open to all its owner may be anybody.
func (w *walk) readLink(dir int, name, path string, st *unix.Stat_t) (string, error) {
	if w.links--; w.links < 0 {
		return "", wrap("open", path, errLinks)
	}
	if st.Uid != 0 {
		return "", &Error{Path: path, Reason: ownedBy(st.Uid)}
	}
	b := make([]byte, unix.PathMax)
	n, err := readlinkat(dir, name, b)
	if err != nil {
		return "", wrap("readlink", path, err)
	}
	return string(b[:n]), nil
}

// file opens and judges the file at the end of the way.
func (w *walk) file(dir int, name, path string) (*os.File, error) {
	// Not to wait for a writer, should it be a FIFO.
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
		err = wrap("stat", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = wrap("open", path, errNotRegular)
	default:
		err = judge(fd, path, &st)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

var errNotRegular = errors.New("not a regular file")

// split gives the steps of a path.
func split(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
