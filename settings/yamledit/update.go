package yamledit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	maxSize = 1 << 20 // bytes of a file that people edit

	lockWait = 10 * time.Second
	attempts = 10 // to change a file that others change meanwhile without the lock

	newFileMode = 0o600
	newDirMode  = 0o700
	// lockMode lets a user take a lock that root's edit of the user's file has
	// made. There is nothing in it to read.
	lockMode = 0o644
)

var (
	// ErrTooLarge says that a file has, or would have, more than 1 MiB.
	ErrTooLarge = errors.New("larger than 1 MiB")
	// ErrLocked says that another writer has kept the lock for too long.
	ErrLocked = errors.New("another program is writing it")
	// ErrBusy says that the file kept changing while it was being changed.
	ErrBusy = errors.New("it keeps changing")
)

// Update changes the file at path: it gives change the file's bytes, nil when
// there is no file, and puts in place what change returns. Other calls of
// Update, of any process, wait for it. A reader sees the old file or the new
// one. When change fails, or returns what it was given, the file is not touched.
//
// change may be called more than once: when the file was changed meanwhile by a
// program that does not know the lock, it is given the new text.
func Update(path string, change func(old []byte) ([]byte, error)) error {
	target, err := resolve(path)
	if err != nil {
		return fmt.Errorf("update %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(target), newDirMode); err != nil {
		return fmt.Errorf("update %s: %w", path, err)
	}
	unlock, err := lock(target)
	if err != nil {
		return fmt.Errorf("update %s: %w", path, err)
	}
	defer unlock()
	sweep(target)
	for range attempts {
		old, err := read(target)
		if err != nil {
			return err
		}
		text, err := change(old.text)
		if err != nil {
			return err
		}
		if old.text != nil && bytes.Equal(text, old.text) {
			return nil
		}
		switch err := replace(target, old, text); {
		case err == nil:
			return nil
		case !errors.Is(err, errChanged):
			return fmt.Errorf("update %s: %w", path, err)
		}
	}
	return fmt.Errorf("update %s: %w", path, ErrBusy)
}

// resolve follows symbolic links to the file that is to be replaced, which need
// not exist: the link is to stay.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 40 { // as many as Linux follows
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link; anything worse shows when it is read
		}
		if !filepath.IsAbs(target) {
			// Not by text alone: the directory may itself be reached by a link.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", errors.New("too many symbolic links")
}

// lock takes the lock of a file, and gives what lets go of it.
//
// The lock is a file beside it and not the file itself, which is replaced: two
// writers could hold locks on two generations of it. The lock file is never
// removed, for the same reason: one who waits for a removed lock file gets a
// lock that nobody else knows.
//
// The wait is the system's, which serves writers in turn. To try again and again
// would let one wait for ever while others come and go. It cannot be ended: when
// the time is up, a goroutine stays until it gets the lock, and lets go of it.
func lock(path string) (unlock func(), err error) {
	name := path + ".lock"
	l := flock.New(name, flock.SetPermissions(lockMode))
	if taken, err := l.TryLock(); err != nil {
		return nil, err
	} else if taken {
		return func() { l.Unlock() }, nil
	}
	got := make(chan error, 1)
	var turn sync.Mutex
	late := false
	go func() {
		err := l.Lock()
		turn.Lock()
		defer turn.Unlock()
		if late && err == nil {
			l.Unlock()
		}
		got <- err
	}()
	timer := time.NewTimer(lockWait)
	defer timer.Stop()
	select {
	case err = <-got:
	case <-timer.C:
		turn.Lock()
		defer turn.Unlock()
		select {
		case err = <-got: // just in time
		default:
			late = true
			err = fmt.Errorf("%w (waited %s for %s)", ErrLocked, lockWait, name)
		}
	}
	if err != nil {
		return nil, err
	}
	return func() { l.Unlock() }, nil
}

// temporary is how the names of a file's temporary files begin.
func temporary(path string) string { return "." + filepath.Base(path) + ".new-" }

// sweep removes what killed writers have left. Whoever holds the lock is the
// only writer, so that any temporary file is a dead one's.
func sweep(path string) {
	dir, prefix := filepath.Dir(path), temporary(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it is only tidying
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
