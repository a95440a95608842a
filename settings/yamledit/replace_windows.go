package yamledit

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

const (
	renameWait  = 2 * time.Second
	renameRetry = 5 * time.Millisecond
)

// like: a new file takes the access list of its directory, and a file's owner is
// who has made it.
func like(*os.File, fs.FileInfo) error { return nil }

// rename waits for those who have the old file open, which is how scanners and
// readers keep it from being replaced for a moment.
func rename(from, to string) error {
	for end := time.Now().Add(renameWait); ; time.Sleep(renameRetry) {
		err := os.Rename(from, to)
		inUse := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if !inUse || time.Now().After(end) {
			return err
		}
	}
}

// syncDir: Windows has no such thing for directories.
func syncDir(string) error { return nil }
