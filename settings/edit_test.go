package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const commented = `# My settings.

# The toggle.
host_networking:
  enabled: false # for now
exposure: loopback
ports:
  ignore:
    - 22/tcp # ssh
    - 9000-9010
  # Nothing is denied yet.
  deny: []
# the end
`

// G1: on and off are kept over restarts, and the user's file stays the user's.
func TestSetKeepsTheRest(t *testing.T) {
	path := write(t, commented)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	s := open(t, Sources{Path: path})
	for _, step := range []struct{ key, value, old, new string }{
		{"host_networking.enabled", "true", "enabled: false # for now", "enabled: true # for now"},
		{"ports.deny", "22,80-90/tcp", "deny: []", "deny: [22, 80-90/tcp]"},
		{"exposure", "mirror", "exposure: loopback", "exposure: mirror"},
	} {
		if err := s.Set(step.key, step.value); err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, path), strings.Replace(commented, step.old, step.new, 1); got != want {
			t.Errorf("%s:\n%s", step.key, got)
		}
		if v := s.Effective().Value(step.key); v.Origin != OriginFile || v.Value != strings.SplitN(step.new, ": ", 2)[1] && !strings.HasPrefix(step.new, "enabled") {
			t.Errorf("in force: %+v", v)
		}
		back := strings.TrimSuffix(strings.SplitN(step.old, ": ", 2)[1], " # for now")
		if err := s.Set(step.key, back); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != commented {
			t.Errorf("%s and back:\n%s", step.key, got)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v: want it kept", info.Mode(), err)
	}
}

func TestSetMakesTheFile(t *testing.T) {
	for name, path := range map[string]string{
		"no file":     filepath.Join(t.TempDir(), "deeper", FileName),
		"empty":       write(t, ""),
		"other key":   write(t, "exposure: mirror\n"),
		"empty group": write(t, "host_networking:\n"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, k := range Keys() {
				s := open(t, Sources{Path: path})
				if err := s.Set(k.Key, samples[k.Key][0]); err != nil {
					t.Fatal(err)
				}
			}
			e := open(t, Sources{Path: path}).Effective()
			for _, v := range e.Values {
				if v.Value != samples[v.Key][0] || v.Origin != OriginFile {
					t.Errorf("%+v", v)
				}
			}
		})
	}
}

func TestUnset(t *testing.T) {
	path := write(t, commented)
	s := open(t, Sources{Path: path})
	if err := s.Unset("exposure"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, path), strings.Replace(commented, "exposure: loopback\n", "", 1); got != want {
		t.Errorf("got\n%s", got)
	}
	if v := s.Effective().Value("exposure"); v.Origin != OriginDefault || v.Value != "mirror" {
		t.Errorf("in force: %+v", v)
	}
	before := read(t, path)
	if err := s.Unset("links"); err != nil || read(t, path) != before {
		t.Errorf("what is not there: %v\n%s", err, read(t, path))
	}
	missing := filepath.Join(t.TempDir(), FileName)
	if err := open(t, Sources{Path: missing}).Unset("links"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

// Nothing is written unless all of it is right.
func TestRefusedChanges(t *testing.T) {
	for _, test := range []struct{ file, key, value, want string }{
		{commented, "exposrue", "mirror", `"exposrue": unknown key: did you mean exposure?`},
		{commented, "ports", "[]", `"ports": unknown key: known here: ` + strings.Join(names(), ", ")},
		{commented, "exposure", "wide", `exposure: must be mirror or loopback, not "wide"`},
		{commented, "exposure", "", `exposure: must be mirror or loopback, not empty`},
		{commented, "exposure", "mirror\nports: {}", `exposure: not YAML: mapping values are not allowed in this context`},
		{commented, "ports.deny", "22/tcp,20-30", `ports.deny[1]: 20-30 overlaps 22/tcp, which is [0]`},
		{commented, "ports.deny", "all", `ports.deny[0]: must be PORT or PORT-PORT, not "all"`},
		{commented, "links", "a", `links[0]: must be NAME=URL, not "a"`},
		{commented, "limits.memory", "1", `limits.memory: must be a size from 16MiB to 64GiB such as 512MiB or 2GiB, not "1"`},
		{commented, "links", strings.Repeat(" ", maxFile+1), `links: larger than 1048576 bytes`},
		// The rest of the file has to be right as well.
		{"exposure: wide\n", "host_networking.enabled", "true", `FILE:1: exposure: must be mirror or loopback, not "wide"`},
		{"exposure: [\n", "host_networking.enabled", "true", `FILE:1: here or on the next line: not YAML: did not find expected node content`},
	} {
		path := write(t, "")
		s := open(t, Sources{Path: path})
		rewrite(t, path, test.file)
		err := s.Set(test.key, test.value)
		if want := strings.Replace(test.want, "FILE", path, 1); err == nil || err.Error() != want {
			t.Errorf("%s, %.50q:\n got %v\nwant %s", test.key, test.value, err, want)
		}
		if read(t, path) != test.file {
			t.Errorf("%s: the file was changed", test.key)
		}
		if unknown := strings.Contains(test.want, "unknown key"); errors.Is(err, ErrUnknownKey) != unknown || errors.As(err, new(*Error)) == unknown {
			t.Errorf("%s: %#v", test.key, err)
		}
	}
	if err := open(t, Sources{Path: write(t, "")}).Unset("exposrue"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("unset: %v", err)
	}
}

// A change can be what mends a file.
func TestSetMends(t *testing.T) {
	for name, mend := range map[string]func(*Store) error{
		"set":   func(s *Store) error { return s.Set("exposure", "loopback") },
		"unset": func(s *Store) error { return s.Unset("exposure") },
	} {
		path := write(t, "localhost_twin: true\n")
		s := open(t, Sources{Path: path})
		rewrite(t, path, "exposure: wide # ?\nlocalhost_twin: true\n")
		if err := mend(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if e := s.Effective(); e.FileError != nil || e.Value("localhost_twin").Origin != OriginFile {
			t.Errorf("%s: %v", name, e.FileError)
		}
	}
}

// What an anchor would carry to other keys is not changed.
func TestSetLeavesAnchorsAlone(t *testing.T) {
	const text = "ports:\n  ignore: &web [80, 443]\n  deny: *web\n"
	path := write(t, text)
	s := open(t, Sources{Path: path})
	err := s.Unset("ports.ignore")
	var e *Error
	if !errors.As(err, &e) || e.Path != path || e.Key != "ports.ignore" {
		t.Errorf("got %v, want an *Error", err)
	}
	if read(t, path) != text {
		t.Errorf("the file holds %s", read(t, path))
	}
}

func TestSetFollowsLinks(t *testing.T) {
	target := write(t, "exposure: mirror\n")
	link := filepath.Join(t.TempDir(), FileName)
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := open(t, Sources{Path: link}).Set("exposure", "loopback"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, target); got != "exposure: loopback\n" {
		t.Errorf("the link's target has %q", got)
	}
}
