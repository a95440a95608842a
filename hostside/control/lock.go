package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// lockName is the file whose lock claims a home. It holds the owner's pid, for
// people; the lock itself is what counts. It is never removed: a file that is
// removed while somebody waits for it can be locked twice.
const lockName = "daemon.lock"

// errLocked is what tryLock returns when another process holds the lock.
var errLocked = errors.New("locked")

// claim takes the lock of a home. The kernel releases it when the file is
// closed or the process dies. The error is a *RunningError when another
// process has it.
func claim(home string) (*os.File, error) {
	path := filepath.Join(home, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim home: %w", err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if errors.Is(err, errLocked) {
			return nil, &RunningError{Home: home, PID: readPID(f)}
		}
		return nil, fmt.Errorf("claim home: lock %s: %w", path, err)
	}
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	if err := errors.Join(f.Truncate(0), writeAt(f, pid)); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim home: %w", err)
	}
	return f, nil
}

func writeAt(f *os.File, p []byte) error {
	_, err := f.WriteAt(p, 0)
	return err
}

// readPID gives 0 when the file does not tell, as in the instant between the
// owner's lock and its write.
func readPID(f *os.File) int {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
