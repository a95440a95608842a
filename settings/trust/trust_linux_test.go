package trust

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	user  = 12345
	group = 23456
)

func asRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files of others")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes DIR/a/b/policy, all root's and for nobody else to write.
func tree(t *testing.T) (dir string) {
	dir = t.TempDir()
	check(t, os.MkdirAll(dir+"/a/b", 0o755))
	check(t, os.WriteFile(dir+"/a/b/policy", []byte("{}"), 0o644))
	return dir
}

// What ordinary users could have written is refused, with where and how.
func TestReadFileRefusesWhatUsersCouldHaveWritten(t *testing.T) {
	asRoot(t)
	for _, c := range []struct {
		name   string
		change func(dir string) error
		path   string // read; "a/b/policy" when empty
		at     string // the one that is open; none when empty
		reason string
	}{
		{name: "all root's", change: func(string) error { return nil }},
		{name: "root's group may write", change: func(d string) error { return os.Chmod(d+"/a/b/policy", 0o664) }},
		{name: "a user's", change: func(d string) error { return os.Chown(d+"/a/b/policy", user, 0) },
			at: "a/b/policy", reason: "owned by uid 12345"},
		{name: "a group's", change: func(d string) error { return os.Chown(d+"/a/b/policy", 0, group) }},
		{name: "a group may write", change: func(d string) error {
			return errors.Join(os.Chown(d+"/a/b/policy", 0, group), os.Chmod(d+"/a/b/policy", 0o664))
		}, at: "a/b/policy", reason: "group 23456 may write"},
		{name: "others may write", change: func(d string) error { return os.Chmod(d+"/a/b/policy", 0o646) },
			at: "a/b/policy", reason: "others may write"},
		{name: "the directory is a user's", change: func(d string) error { return os.Chown(d+"/a/b", user, 0) },
			at: "a/b", reason: "owned by uid 12345"},
		{name: "the directory is open", change: func(d string) error { return os.Chmod(d+"/a/b", 0o757) },
			at: "a/b", reason: "others may write"},
		{name: "a directory above is open to a group", change: func(d string) error {
			return errors.Join(os.Chown(d+"/a", 0, group), os.Chmod(d+"/a", 0o775))
		}, at: "a", reason: "group 23456 may write"},
		{name: "a sticky directory above", change: func(d string) error { return os.Chmod(d+"/a", 0o777|fs.ModeSticky) }},
		{name: "a sticky directory with a user's file", change: func(d string) error {
			return errors.Join(os.Chmod(d+"/a/b", 0o777|fs.ModeSticky), os.Chown(d+"/a/b/policy", user, 0))
		}, at: "a/b/policy", reason: "owned by uid 12345"},
		{name: "a user's sticky directory", change: func(d string) error {
			return errors.Join(os.Chmod(d+"/a", 0o777|fs.ModeSticky), os.Chown(d+"/a", user, 0))
		}, at: "a", reason: "owned by uid 12345"},
		{name: "a link in a safe directory", change: func(d string) error { return os.Symlink("a/b/policy", d+"/link") }, path: "link"},
		{name: "a link out of an open directory", change: func(d string) error {
			return errors.Join(os.Mkdir(d+"/open", 0o755), os.Symlink(d+"/a/b/policy", d+"/open/link"), os.Chmod(d+"/open", 0o777))
		}, path: "open/link", at: "open", reason: "others may write"},
		{name: "a link into an open directory", change: func(d string) error {
			return errors.Join(os.Symlink("a/b", d+"/link"), os.Chmod(d+"/a", 0o777))
		}, path: "link/policy", at: "a", reason: "others may write"},
		{name: "a user's link in a sticky directory", change: func(d string) error {
			return errors.Join(os.Chmod(d+"/a", 0o777|fs.ModeSticky), os.Symlink("b/policy", d+"/a/link"), os.Lchown(d+"/a/link", user, 0))
		}, path: "a/link", at: "a/link", reason: "owned by uid 12345"},
		{name: "links through an open directory and out again", change: func(d string) error {
			return errors.Join(os.Mkdir(d+"/open", 0o755), os.Symlink("open/../a", d+"/link"), os.Chmod(d+"/open", 0o777))
		}, path: "link/b/policy", at: "open", reason: "others may write"},
		{name: "missing where a user could have taken it away", change: func(d string) error {
			return errors.Join(os.Remove(d+"/a/b/policy"), os.Chmod(d+"/a/b", 0o777))
		}, at: "a/b", reason: "others may write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			check(t, c.change(dir))
			path := c.path
			if path == "" {
				path = "a/b/policy"
			}
			text, err := ReadFile(filepath.Join(dir, path), 100)
			if c.at == "" {
				if err != nil || string(text) != "{}" {
					t.Errorf("got %q, %v", text, err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %q, %v, want an *Error", text, err)
			}
			if e.Path != filepath.Join(dir, c.at) || e.Reason != c.reason {
				t.Errorf("got %+v, want %s: %s", e, c.at, c.reason)
			}
		})
	}
}

// An access list gives a user what the mode seems to give to root's group.
func TestReadFileSeesAccessLists(t *testing.T) {
	asRoot(t)
	dir := tree(t)
	// Version 2; owner rw, user 12345 rw, group r, mask rw, others r.
	list := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{0x01, 6, 0xffffffff}, {0x02, 6, user}, {0x04, 4, 0xffffffff}, {0x10, 6, 0xffffffff}, {0x20, 4, 0xffffffff}} {
		list = append(list, byte(e[0]), 0, byte(e[1]), 0, byte(e[2]), byte(e[2]>>8), byte(e[2]>>16), byte(e[2]>>24))
	}
	if err := unix.Setxattr(dir+"/a/b/policy", "system.posix_acl_access", list, 0); err != nil {
		t.Skipf("no access lists on this file system: %v", err)
	}
	var e *Error
	if _, err := ReadFile(dir+"/a/b/policy", 100); !errors.As(err, &e) || !strings.Contains(e.Reason, "access list") {
		t.Errorf("got %v", err)
	}
}

func TestReadFileMissing(t *testing.T) {
	asRoot(t)
	dir := tree(t)
	check(t, os.Symlink("nowhere", dir+"/link"))
	for _, path := range []string{"none", "none/policy", "a/b/none", "link"} {
		if _, err := ReadFile(filepath.Join(dir, path), 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want fs.ErrNotExist", path, err)
		}
	}
}

// Anything else is an error that is neither, and that names the path.
func TestReadFileOtherErrors(t *testing.T) {
	asRoot(t)
	dir := tree(t)
	check(t, syscall.Mkfifo(dir+"/fifo", 0o644))
	check(t, os.Symlink("loop", dir+"/loop"))
	check(t, os.WriteFile(dir+"/large", make([]byte, 101), 0o644))
	for _, path := range []string{"fifo", "a/b", "loop", "large", "large/policy"} {
		got := make(chan error, 1)
		go func() { _, err := ReadFile(filepath.Join(dir, path), 100); got <- err }()
		select {
		case err := <-got:
			var e *Error
			if err == nil || errors.Is(err, fs.ErrNotExist) || errors.As(err, &e) || !strings.Contains(err.Error(), filepath.Join(dir, strings.Split(path, "/")[0])) {
				t.Errorf("%s: got %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: waits", path)
		}
	}
	check(t, os.WriteFile(dir+"/limit", make([]byte, 100), 0o644))
	if text, err := ReadFile(dir+"/limit", 100); err != nil || len(text) != 100 {
		t.Errorf("a file as large as the limit: %d bytes, %v", len(text), err)
	}
}

func TestReadFileOfARelativePath(t *testing.T) {
	asRoot(t)
	t.Chdir(tree(t))
	if text, err := ReadFile("a/b/policy", 100); err != nil || string(text) != "{}" {
		t.Errorf("got %q, %v", text, err)
	}
}

// The real programs of an ordinary user: who may walk but not list the way.
func TestReadFileAsAnOrdinaryUser(t *testing.T) {
	if path := os.Getenv("VMBRIDGE_TEST_READ"); path != "" {
		if text, err := ReadFile(path, 100); err != nil || string(text) != "{}" {
			t.Errorf("got %q, %v", text, err)
		}
		return
	}
	asRoot(t)
	// Not below the test's own directory, which is root's alone to walk.
	dir, err := os.MkdirTemp("", "vmbridge-trust-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o711))
	check(t, os.WriteFile(dir+"/policy", []byte("{}"), 0o644))
	program := dir + "/test"
	text, err := os.ReadFile(os.Args[0])
	check(t, err)
	check(t, os.WriteFile(program, text, 0o755))
	cmd := exec.Command(program, "-test.run", "^"+t.Name()+"$")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "VMBRIDGE_TEST_READ="+dir+"/policy")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: group}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A link that is turned back and forth between a safe file and a user's never
// gives the user's text.
func TestReadFileIsNotRaced(t *testing.T) {
	asRoot(t)
	dir := tree(t)
	check(t, os.Mkdir(dir+"/users", 0o755))
	check(t, os.WriteFile(dir+"/users/policy", []byte("evil"), 0o666))
	check(t, os.Chmod(dir+"/users/policy", 0o666))
	check(t, os.Chown(dir+"/users", user, group))
	check(t, os.Symlink("a/b", dir+"/link"))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			target := []string{"a/b", "users"}[i%2]
			if err := errors.Join(os.Symlink(target, dir+"/next"), os.Rename(dir+"/next", dir+"/link")); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	good, refused := 0, 0
	for end := time.Now().Add(10 * time.Second); (good < 500 || refused < 500) && time.Now().Before(end); {
		text, err := ReadFile(dir+"/link/policy", 100)
		var e *Error
		switch {
		case err == nil && string(text) == "{}":
			good++
		case errors.As(err, &e):
			refused++
		case err == nil:
			t.Fatalf("read %q", text)
		}
	}
	close(stop)
	<-stopped
	if good == 0 || refused == 0 {
		t.Errorf("read %d times and refused %d times: nothing was raced", good, refused)
	}
}
