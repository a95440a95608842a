package linkkey

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// Size is the size of a key in bytes.
const Size = 32

// Key is a link key.
type Key [Size]byte

// maxFile bounds what is read of a key file: the digits and much white space.
const maxFile = 4096

var (
	// ErrInvalid says that a text is no key, or a name no link's.
	ErrInvalid = errors.New("invalid link key")
	// ErrExposed says that others may read the file.
	ErrExposed = errors.New("others can read the link key")
)

// String gives the form that files hold.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// New makes a key.
func New() Key {
	var k Key
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// Parse reads 64 hexadecimal digits; white space among them is ignored.
func Parse(text string) (Key, error) {
	digits := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	if len(digits) != 2*Size {
		return Key{}, fmt.Errorf("%w: it has %d characters, want %d hexadecimal digits", ErrInvalid, len(digits), 2*Size)
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		// The error of hex would show a part of the key.
		return Key{}, fmt.Errorf("%w: not all characters are hexadecimal digits", ErrInvalid)
	}
	return Key(raw), nil
}

// Path is the file of a link's key in a daemon's home.
func Path(home, link string) (string, error) {
	if link == "" || link == "." || link == ".." || strings.ContainsAny(link, `/\:`) || strings.ContainsFunc(link, unicode.IsControl) {
		return "", fmt.Errorf("%w: link name %q cannot be a file name", ErrInvalid, link)
	}
	return filepath.Join(home, "keys", link), nil
}

// Load reads a key file.
func Load(path string) (Key, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, fmt.Errorf("link key %s: %w: copy the host's there (vmbridge guest key NAME prints it)", path, fs.ErrNotExist)
	}
	if err != nil {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	defer f.Close()
	if err := checkMode(f); err != nil {
		return Key{}, fmt.Errorf("link key %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	key, err := Parse(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("link key %s: %w", path, err)
	}
	return key, nil
}

// LoadOrCreate reads a key file, or makes it, and the directory that it is in,
// when there is none.
func LoadOrCreate(path string) (Key, error) {
	key, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-key-*") // mode 0600
	if err != nil {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(New().String() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	// A link fails where the name exists: whoever is first wins, and the
	// others read what it wrote.
	if err := publish(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return Key{}, fmt.Errorf("link key: %w", err)
	}
	return Load(path)
}
