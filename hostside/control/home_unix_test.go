//go:build unix

package control

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The test program plays other processes: a second daemon, and another user.
func TestMain(m *testing.M) {
	switch os.Getenv("CONTROL_TEST_ROLE") {
	case "daemon":
		// Listens until it is killed, and says when it does.
		if _, err := Listen(os.Getenv("CONTROL_TEST_HOME"), quiet()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("listening")
		select {}
	case "stranger":
		conn, err := net.Dial("unix", os.Getenv("CONTROL_TEST_HOME"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Fprint(conn, "GET /v1/version HTTP/1.0\r\n\r\n")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Printf("answer: %q\n", line)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func role(t *testing.T, role, home string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CONTROL_TEST_ROLE="+role, "CONTROL_TEST_HOME="+home)
	return cmd
}

// G3: a second daemon is refused and told whom to look for; one that was killed
// leaves nothing that is in the way.
func TestOneDaemonPerHome(t *testing.T) {
	home := t.TempDir()
	other := role(t, "daemon", home)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "listening\n" {
		t.Fatalf("the other daemon said %q, %v", line, err)
	}
	_, err = Listen(home, quiet())
	var running *RunningError
	if !errors.As(err, &running) || running.PID != other.Process.Pid {
		t.Fatalf("got %v, want a RunningError with pid %d", err, other.Process.Pid)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, fmt.Sprint(other.Process.Pid)) {
		t.Errorf("the error is %q", text)
	}
	other.Process.Kill()
	other.Wait()
	if _, err := os.Lstat(filepath.Join(home, "control.sock")); err != nil {
		t.Errorf("the killed daemon left no socket: %v", err)
	}
	if _, err := NewClient(home).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a stale socket gives %v", err)
	}
	server, err := Listen(home, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(home, "control.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket is left after Close: %v", err)
	}
}

// H3: another user of this machine cannot read the control socket.
func TestModes(t *testing.T) {
	home := filepath.Join(t.TempDir(), "made", "by us")
	server, err := Listen(home, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for path, want := range map[string]fs.FileMode{
		home:                                0o700,
		filepath.Join(home, "control.sock"): 0o600,
		filepath.Join(home, lockName):       0o600,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

// H3, again without the file modes: the peer's credentials decide too.
func TestStrangerIsRefused(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root, to become another user, and /proc, to start this program as one")
	}
	home, _ := serve(t, newFake())
	socket := filepath.Join(home, "control.sock")
	// A name for it that anybody can reach, as a careless bind mount gives.
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	link := filepath.Join(dir, "s")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Link(socket, link), os.Chmod(link, 0o666)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		uid  uint32
		want string
	}{{65534, `answer: ""`}, {0, `answer: "HTTP/1.0 200 OK\r\n"`}} {
		cmd := role(t, "stranger", link)
		// Through a descriptor, since the other user cannot reach the test's
		// directory.
		self, err := os.Open(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{self}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.uid, Gid: test.uid}}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != test.want {
			t.Errorf("uid %d: %s, %v, want %s", test.uid, got, err, test.want)
		}
	}
}

func TestUnusableHomes(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	occupied := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "control.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		home string
		want error
	}{
		"others may write":   {open, ErrUnsafeHome},
		"a file":             {file, syscall.ENOTDIR},
		"something in place": {occupied, ErrSocketPath},
		"too long":           {filepath.Join(dir, strings.Repeat("long", 30)), ErrSocketPath},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := Listen(test.home, quiet())
			if err == nil {
				server.Close()
			}
			if !errors.Is(err, test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line about %v", err, test.want)
			}
		})
	}
}
