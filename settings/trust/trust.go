package trust

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// Error says that ordinary users could have written a file.
type Error struct {
	Path   string // the file, or the directory on the way to it, that is open to them
	Reason string // how: its owner, or who may write
}

func (e *Error) Error() string { return e.Path + ": " + e.Reason }

// ReadFile reads a file of up to limit bytes that only administrators can have
// written. A missing file is fs.ErrNotExist; one that ordinary users could have
// written is an *Error. Any other error names the path.
//
// It is for files that give orders to a program against its user's will. For
// others os.ReadFile is right.
func ReadFile(path string, limit int64) ([]byte, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	f, done, err := open(absolute)
	if err != nil {
		return nil, err
	}
	defer done()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, wrap("read", path, err)
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, limit)
	}
	return b.Bytes(), nil
}

// wrap names the operation and the path, once.
func wrap(op, path string, err error) error {
	if inner, ok := err.(*fs.PathError); ok {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
