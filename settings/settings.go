package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"gopkg.in/yaml.v3"
)

// FileName is the settings file's name in the home.
const FileName = "settings.yaml"

// Path is the settings file of a home.
func Path(home string) string { return filepath.Join(home, FileName) }

// Exposure says how widely forwards listen on the host.
type Exposure string

const (
	// Mirror opens on the host what the guest's socket is bound to.
	Mirror Exposure = "mirror"
	// Loopback narrows everything to the host's loopback.
	Loopback Exposure = "loopback"
)

// Settings is what the file holds.
type Settings struct {
	HostNetworking HostNetworking
	Exposure       Exposure
	// LocalhostTwin also opens ::1 for IPv4 listeners.
	LocalhostTwin bool
	Ports         Ports
	HostReach     HostReach
	Links         []Link
}

// HostNetworking is the toggle.
type HostNetworking struct {
	Enabled bool
}

// Ports is which ports are forwarded.
type Ports struct {
	// Ignore lists the ports that are left alone. Nil, when the file does not
	// say, means the built-in list; an empty list means none.
	Ignore []PortRange
}

// HostReach is what guests may reach on the host's loopback.
type HostReach struct {
	// Enabled lets guests reach it at all. Like everything else it waits for
	// HostNetworking.
	Enabled bool
	// Allow lists the ports that guests may reach. Nil, when the file does not
	// say, means every port; an empty list means none.
	Allow []PortRange
	// Deny lists the ports that they may not, whatever Allow says.
	Deny []PortRange
}

// Default is what applies where the file says nothing.
func Default() Settings {
	return Settings{
		Exposure: Mirror,
		// localhost means ::1 first on macOS and Windows.
		LocalhostTwin: runtime.GOOS != "linux",
		HostReach:     HostReach{Enabled: true},
	}
}

// Error is a mistake in a settings file.
type Error struct {
	Path string
	Line int    // 0 when the mistake is the whole file's
	Key  string // empty when it is not about one key
	Err  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Path)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Load reads the file at path. A file that does not exist is the defaults; any
// mistake in it is an *Error.
func Load(path string) (Settings, error) {
	data, err := read(path)
	if err != nil {
		return Settings{}, err
	}
	_, s, err := parse(path, data)
	return s, err
}

// maxFile bounds what is read: a settings file is a page, not a disk.
const maxFile = 1 << 20

// read gives the file's text, which is empty when it does not exist.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(data) > maxFile {
		return nil, &Error{Path: path, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	return data, nil
}

// parse gives the settings in data and the document they were read from, which
// is nil where there is no content at all.
func parse(path string, data []byte) (*yaml.Node, Settings, error) {
	s := Default()
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, s, nil
	} else if err != nil {
		return nil, Settings{}, syntaxError(path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, Settings{}, &Error{Path: path, Err: errors.New("more than one document: remove what follows the first ---")}
	}
	root := doc.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		return &doc, s, nil
	case root.Kind != yaml.MappingNode:
		return nil, Settings{}, &Error{Path: path, Line: root.Line, Err: errors.New("must be a mapping of keys to values")}
	}
	if err := s.decode(root); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.Path = path
		}
		return nil, Settings{}, err
	}
	return &doc, s, nil
}

// unreadable drops the path from a file error, since Error says it already.
func unreadable(path string, err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = fmt.Errorf("cannot %s it: %w", e.Op, e.Err)
	}
	return &Error{Path: path, Err: err}
}

// syntaxError takes the line out of the YAML library's message, which has it
// only in its text; where that looks different, the text stays whole. The
// library counts lines from 0 in some errors and from 1 in others (measured,
// v3.0.1), hence the wording.
func syntaxError(path string, err error) error {
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", "; ")
	var line int
	if n, scanErr := fmt.Sscanf(text, "line %d: ", &line); n == 1 && scanErr == nil {
		_, text, _ = strings.Cut(text, ": ")
		text = "here or on the next line: " + text
	}
	return &Error{Path: path, Line: line, Err: errors.New("not YAML, " + text)}
}
