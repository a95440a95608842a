//go:build unix

package linkkey

import (
	"fmt"
	"os"
)

// checkMode refuses a file that others than its owner may read or change.
func checkMode(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w (mode %04o): chmod 600 it, and make a new key if it may have been read", ErrExposed, mode)
	}
	return nil
}

// publish gives the file its name unless that is taken: a link, unlike a
// rename, does not replace.
func publish(from, to string) error { return os.Link(from, to) }
