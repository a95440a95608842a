//go:build !windows

package isolation

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What would block a reader does not block us.
func TestFilesThatBlock(t *testing.T) {
	l := lay(t, "absent", "absent", "absent")
	l.WSL = filepath.Join(filepath.Dir(l.Admin), ".wslconfig")
	for _, path := range l.Paths() {
		if err := syscall.Mkfifo(path, 0o644); err != nil {
			t.Skipf("no FIFOs here: %v", err)
		}
	}
	read := make(chan Host, 1)
	go func() { read <- l.Read() }()
	select {
	case h := <-read:
		if len(h.Findings) != 3 || h.WSL.Problem != "cannot be read: it is not a regular file" {
			t.Errorf("got %+v", h)
		}
		for _, f := range h.Findings {
			if f.State != Unknown || f.What != "cannot be read: it is not a regular file" {
				t.Errorf("finding %v", f)
			}
		}
	case <-time.After(10 * time.Second):
		t.Fatal("blocked")
	}
	device := Locations{OS: "linux", Users: []DesktopFiles{{Store: "/dev/zero", Older: "/dev/null"}}}
	if h := device.Read(); len(h.Findings) != 2 || h.Findings[0].State != Unknown {
		t.Errorf("devices: %+v", h.Findings)
	}
}

// A file may be a symbolic link, as those who keep their settings in a
// repository make it; a dangling one is no file.
func TestSymbolicLinks(t *testing.T) {
	l, target := lay(t, "absent", "absent", "absent"), filepath.Join(t.TempDir(), "target")
	if err := os.Symlink(target, l.Users[0].Store); err != nil {
		t.Fatal(err)
	}
	if h := l.Read(); len(h.Findings) != 0 {
		t.Errorf("dangling: %v", h.Findings)
	}
	write(t, target, userFiles["on"])
	if f := one(t, l); f.State != On || f.Where != l.Users[0].Store {
		t.Errorf("got %v", f)
	}
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(l.Users[0].Store, target); err != nil {
		t.Fatal(err)
	}
	if f := one(t, l); f.State != Unknown {
		t.Errorf("a loop: %v", f)
	}
}

// unreadableDir tells the child that TestUnreadable starts where to look.
const unreadableDir = "VMBRIDGE_TEST_UNREADABLE"

// G2: a file that we may not read is unknown, not off. The one beside it counts.
func TestUnreadable(t *testing.T) {
	if dir := os.Getenv(unreadableDir); dir != "" {
		expectUnreadable(t, dir)
		return
	}
	// Neither t.TempDir nor the test binary can be reached by another user.
	dir, err := os.MkdirTemp("", "isolation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := scenario(filepath.Join(dir, "linux-"))
	if err := os.Mkdir(filepath.Dir(l.Admin), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, l.Users[0].Store, userFiles["off"])
	write(t, l.Admin, adminFiles["locked on"])
	if err := os.Chmod(l.Admin, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		expectUnreadable(t, dir)
		return
	}
	if f := one(t, l); f.State != On {
		t.Errorf("root: %v", f)
	}
	binary := filepath.Join(dir, "test")
	copyProgram(t, binary)
	child := exec.Command(binary, "-test.run=^TestUnreadable$", "-test.v")
	child.Env = append(os.Environ(), unreadableDir+"="+dir)
	child.Dir = dir
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestUnreadable") {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

func expectUnreadable(t *testing.T, dir string) {
	l := scenario(filepath.Join(dir, "linux-"))
	v := Judge(Setting{}, l.Read(), nil)
	if got, want := brief(v), "unknown, unknown admin-settings, off settings-store"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if f := v.Findings[0]; f.What != "cannot be read: permission denied" || f.Remedy != "let the user that runs vmbridge read it" {
		t.Errorf("got %v", f)
	}
}

func copyProgram(t *testing.T, to string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
