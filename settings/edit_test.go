package settings

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// G1: on and off are kept over restarts, and the user's file stays the user's.
func TestSetEnabledKeepsTheRest(t *testing.T) {
	const before = `# My settings.

# The toggle.
host_networking:
  enabled: false # for now
exposure: loopback
ports:
  ignore:
    - 22/tcp # ssh
    - 9000-9010
# the end
`
	path := write(t, before)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := SetEnabled(path, true); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !s.HostNetworking.Enabled || s.Exposure != Loopback || len(s.Ports.Ignore) != 2 {
		t.Errorf("loaded %+v", s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v: want it kept", info.Mode(), err)
	}
	if err := SetEnabled(path, false); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != before {
		t.Errorf("on and off again gave:\n%s", after)
	}
}

func TestSetEnabledMakesTheFile(t *testing.T) {
	for name, path := range map[string]string{
		"no file":     filepath.Join(t.TempDir(), "deeper", FileName),
		"empty":       write(t, ""),
		"other key":   write(t, "exposure: mirror\n"),
		"empty group": write(t, "host_networking:\n"),
		"null":        write(t, "null\n"),
	} {
		t.Run(name, func(t *testing.T) {
			if err := SetEnabled(path, true); err != nil {
				t.Fatal(err)
			}
			s, err := Load(path)
			if err != nil || !s.HostNetworking.Enabled {
				t.Errorf("loaded %+v, %v", s, err)
			}
		})
	}
}

func TestSetEnabledLeavesABadFileAlone(t *testing.T) {
	const text = "exposure: wide\n"
	path := write(t, text)
	var e *Error
	if err := SetEnabled(path, true); !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != text {
		t.Errorf("the file now holds %q, %v", after, err)
	}
}

func TestSetEnabledFollowsLinks(t *testing.T) {
	target := write(t, "exposure: mirror\n")
	link := filepath.Join(t.TempDir(), FileName)
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := SetEnabled(link, true); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(target); err != nil || !s.HostNetworking.Enabled {
		t.Errorf("the link's target has %+v, %v", s, err)
	}
}

// A reader never sees half a file, and no temporary file stays.
func TestSetEnabledIsAtomic(t *testing.T) {
	path := write(t, "exposure: loopback\n")
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if s, err := Load(path); err != nil || s.Exposure != Loopback {
				t.Errorf("read %+v, %v in between", s, err)
				return
			}
		}
	})
	for i := range 100 {
		if err := SetEnabled(path, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

func TestParsePortRange(t *testing.T) {
	for _, s := range []string{"1", "65535", "22/tcp", "1-65535/udp", "8000-8010"} {
		r, err := ParsePortRange(s)
		if err != nil || r.String() != s {
			t.Errorf("%q gave %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "0", "65536", "-1", "2-1", "1-", "-", "22/sctp", "22/", "/tcp", "1-2-3", " 1", "0x10", "+1"} {
		if r, err := ParsePortRange(s); err == nil {
			t.Errorf("%q gave %v", s, r)
		}
	}
}

func TestParseLink(t *testing.T) {
	l, err := ParseLink("a=exec:ssh vm A=B serve")
	if want := (Link{Name: "a", URL: "exec:ssh vm A=B serve"}); err != nil || l != want {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, s := range []string{"", "a", "a=", "=b", "a/b=c", ".a=c", "a b=c", "\x1b=c"} {
		if l, err := ParseLink(s); err == nil {
			t.Errorf("%q gave %+v", s, l)
		}
	}
}
