package yamledit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// generation is a file as it was read.
type generation struct {
	text []byte // nil when there was none
	info fs.FileInfo
}

func read(path string) (generation, error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return generation{}, nil
	case err != nil:
		return generation{}, err
	case !info.Mode().IsRegular(): // to open a FIFO would wait
		return generation{}, fmt.Errorf("read %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return generation{}, nil
	}
	if err != nil {
		return generation{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return generation{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return generation{}, err
	}
	if len(text) > maxSize {
		return generation{}, fmt.Errorf("read %s: %w", path, ErrTooLarge)
	}
	if text == nil {
		text = []byte{}
	}
	return generation{text: text, info: info}, nil
}

var errChanged = errors.New("changed meanwhile")

// unchanged says if the file is still the one that was read. An editor can write
// twice within one tick of the clock of a file system: so the text counts.
func (g generation) unchanged(path string) (bool, error) {
	now, err := read(path)
	if err != nil {
		return false, err
	}
	if (now.info == nil) != (g.info == nil) {
		return false, nil
	}
	return g.info == nil || os.SameFile(now.info, g.info) && bytes.Equal(now.text, g.text), nil
}

// replace puts a new text in place of the generation that was read.
func replace(path string, old generation, text []byte) (err error) {
	if len(text) > maxSize {
		return ErrTooLarge
	}
	f, err := os.CreateTemp(filepath.Dir(path), temporary(path)+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	if _, err = f.Write(text); err == nil {
		err = like(f, old.info)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	same, err := old.unchanged(path)
	if err != nil {
		return err
	}
	if !same {
		return errChanged
	}
	if err := rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
