//go:build unix

package yamledit

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// like gives a new file the mode and the owners of the one that it is to
// replace. The owner matters when root edits a user's file; others cannot give
// files away, and then the file is theirs. Owners first: to change them clears
// bits of the mode.
func like(f *os.File, old fs.FileInfo) error {
	if old == nil {
		return f.Chmod(newFileMode)
	}
	mode := old.Mode().Perm()
	if st, ok := old.Sys().(*syscall.Stat_t); ok {
		err := f.Chown(int(st.Uid), int(st.Gid))
		if errors.Is(err, fs.ErrPermission) {
			if err = f.Chown(-1, int(st.Gid)); errors.Is(err, fs.ErrPermission) {
				mode, err = mode&^0o070, nil // not for another group to use
			}
		}
		if err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}

func rename(from, to string) error { return os.Rename(from, to) }

// syncDir makes a rename outlast a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems have no such thing.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
