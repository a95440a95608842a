package pseudofs

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountPoint(t *testing.T) {
	for _, c := range []struct {
		line, want string
		ok         bool
	}{
		{"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified", true},
		{"41 31 0:38 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate", "/sys/fs/cgroup", true},
		{`41 31 0:38 / /my\040cgroup\134 rw - cgroup2 none rw`, `/my cgroup\`, true},
		{"41 31 0:38 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "", false}, // a part of the tree
		{"41 31 0:38 / /sys/fs/cgroup rw - cgroup cgroup rw", "", false},
		{"41 31 0:38 / /sys/fs/cgroup rw", "", false},
		{"", "", false},
		{"- cgroup2", "", false},
	} {
		if got, ok := mountPoint(c.line, "cgroup2"); got != c.want || ok != c.ok {
			t.Errorf("%q: got %q %v, want %q %v", c.line, got, ok, c.want, c.ok)
		}
	}
}

func FuzzMountPoint(f *testing.F) {
	f.Add("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw")
	f.Add("1 - cgroup2")
	f.Fuzz(func(t *testing.T, line string) {
		if point, ok := mountPoint(line, "cgroup2"); ok && point == "" {
			t.Errorf("%q: mounted nowhere", line)
		}
	})
}

// TestDetached holds that what is not mounted can be had all the same, and that
// nobody else sees it.
func TestDetached(t *testing.T) {
	before := mounts(t)
	root, err := mountDetached("tracefs")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) {
		t.Skip("no detached mounts of tracefs:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	text, err := ReadAt(root, "events/sched/sched_switch/id")
	if err != nil || strings.TrimSpace(text) == "" {
		t.Errorf("got %q, %v, want a number", text, err)
	}
	if _, err := ReadAt(root, "no/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts of tracefs: %d before, %d after", before, after)
	}
}

// mounts counts the mounts of tracefs.
func mounts(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), " - tracefs ")
}

func TestUnknown(t *testing.T) {
	if root, err := OpenRoot("nosuchfs"); err == nil {
		root.Close()
		t.Error("a file system that does not exist was opened")
	}
}
