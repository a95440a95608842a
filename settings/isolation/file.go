package isolation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode/utf16"
)

// maxFile bounds what is read. Real files have a few KiB.
const maxFile = 4 << 20

// readFile reads a small regular file. It never waits for a writer, as reading a
// FIFO would.
func readFile(path string) ([]byte, error) {
	// Opening some devices has effects, so look before.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // it may be another one by now
		return nil, err
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return data, nil
}

func regular(info fs.FileInfo) error {
	switch {
	case info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return errors.New("it is a directory")
	}
	return errors.New("it is not a regular file")
}

// absent tells whether err means that there is no such file. A directory on the
// way that is a file means that as well.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// reason is err without the path, which is named beside it anyway.
func reason(err error) string {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

// text decodes what editors write: UTF-8 with or without a byte order mark, or
// UTF-16 with one, which Notepad calls Unicode.
func text(data []byte) string {
	s := string(data)
	if rest, ok := strings.CutPrefix(s, "\xff\xfe"); ok {
		units := make([]uint16, len(rest)/2)
		for i := range units {
			units[i] = binary.LittleEndian.Uint16(data[2+2*i:])
		}
		return string(utf16.Decode(units))
	}
	return strings.TrimPrefix(s, "\ufeff")
}
