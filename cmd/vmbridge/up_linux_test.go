package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// lockedBuffer is written to by a process and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// up starts a daemon on the sandbox and waits until its link is up.
func startUp(t *testing.T, home string, args ...string) (daemon *exec.Cmd, stdout, stderr *lockedBuffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for the sandbox's network namespace")
	}
	stdout, stderr = new(lockedBuffer), new(lockedBuffer)
	daemon = command(t, home, append([]string{"up"}, args...)...)
	daemon.Stdout, daemon.Stderr = stdout, stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, daemon) })
	wait.Until(t, 20*time.Second, "the link is up", func() bool {
		if strings.Contains(stderr.String(), "needs root") {
			t.Skipf("this root may not make network namespaces: %s", stderr)
		}
		_, out, _ := invoke(t, home, "status", "--json")
		var s control.Status
		return json.Unmarshal([]byte(out), &s) == nil && len(s.Links) == 1 && s.Links[0].State == control.LinkUp
	})
	return daemon, stdout, stderr
}

// freePort is a TCP port that nobody had a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestWholePath is the walk-through of the README, with a server that echoes.
func TestWholePath(t *testing.T) {
	home := newHome(t)
	daemon, stdout, _ := startUp(t, home, "--enable")
	for _, want := range []string{"No link is configured", "shell nc -lkv 0.0.0.0 8000", "nc localhost 8000", "ports --watch"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the banner lacks %q:\n%s", want, stdout)
		}
	}
	watch := command(t, home, "ports", "--watch")
	lines := new(lockedBuffer)
	watch.Stdout = lines
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(t, watch)

	nc, err := exec.LookPath("nc")
	if err != nil {
		t.Skip("needs nc")
	}
	port := fmt.Sprint(freePort(t))
	server := command(t, home, "shell", nc, "-lkn", "127.0.0.1", port)
	toServer, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	fromServer, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill() // shell has become nc
		server.Wait()
	}()

	var conn net.Conn
	wait.Until(t, 20*time.Second, "the guest's port answers on the host", func() bool {
		conn, err = net.Dial("tcp", "127.0.0.1:"+port)
		return err == nil
	})
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(fromServer).ReadString('\n'); line != "hello\n" {
		t.Fatalf("the guest got %q, %v", line, err)
	}
	fmt.Fprintln(toServer, "reply")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "reply\n" {
		t.Fatalf("the host got %q, %v", line, err)
	}
	wait.Until(t, 20*time.Second, "the watch shows it", func() bool {
		return strings.Contains(lines.String(), "appear  tcp 127.0.0.1:"+port+"  -> 127.0.0.1:"+port+"  open  nc (pid ")
	})
	if _, table, _ := invoke(t, home, "ports"); !strings.Contains(table, "127.0.0.1:"+port) {
		t.Errorf("ports shows:\n%s", table)
	}

	// G1, C4: off closes the forward and the flow, on opens it again.
	if status, _, stderr := invoke(t, home, "disable"); status != 0 {
		t.Fatalf("disable: %d, %s", status, stderr)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the flow outlived disable")
	}
	if again, err := net.Dial("tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after disable: %v, %v", again, err)
	}
	if status, _, stderr := invoke(t, home, "enable"); status != 0 {
		t.Fatalf("enable: %d, %s", status, stderr)
	}
	wait.Until(t, 20*time.Second, "the port is back", func() bool {
		again, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			again.Close()
		}
		return err == nil
	})

	// C4: the daemon's exit releases everything at once and leaves nothing.
	netNS := sandboxOf(t, home)
	stop(t, daemon)
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the daemon's end: %v, %v", conn, err)
	}
	if _, err := os.Lstat(netNS); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", netNS, err)
	}
	err = watch.Wait()
	if watch.ProcessState.ExitCode() != 4 {
		t.Errorf("the watch ended with %v, want exit status 4", err)
	}
}

func sandboxOf(t *testing.T, home string) string {
	t.Helper()
	s, err := control.NewClient(home).Sandbox(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return s.NetNS
}

func TestShell(t *testing.T) {
	home := newHome(t)
	startUp(t, home)
	var stat syscall.Stat_t
	if err := syscall.Stat(sandboxOf(t, home), &stat); err != nil {
		t.Fatal(err)
	}
	status, stdout, _ := invoke(t, home, "shell", "sh", "-c", "readlink /proc/self/ns/net; exit 42")
	if want := fmt.Sprintf("net:[%d]\n", stat.Ino); status != 42 || stdout != want {
		t.Errorf("status %d, %q, want 42 and %q", status, stdout, want)
	}
	status, _, stderr := invoke(t, home, "shell", "no-such-command")
	wantError(t, status, stderr, 1, "no-such-command")

	// The default is $SHELL, with a hint.
	sh := command(t, home, "shell")
	sh.Env = append(sh.Env, "SHELL=/bin/sh")
	sh.Stdin = strings.NewReader("echo in $PS1\n")
	out, err := sh.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "in (vmbridge default)") || !strings.Contains(string(out), "exit leaves it") {
		t.Errorf("%q, %v", out, err)
	}
}

// Off by default (G1): up says how to turn it on. A second daemon is refused.
func TestUpDefaults(t *testing.T) {
	home := newHome(t)
	daemon, stdout, _ := startUp(t, home)
	if !strings.Contains(stdout.String(), "Host networking is off") || !strings.Contains(stdout.String(), "enable") {
		t.Errorf("the banner does not tell how to turn it on:\n%s", stdout)
	}
	status, _, stderr := invoke(t, home, "up")
	wantError(t, status, stderr, 1, fmt.Sprintf("pid %d", daemon.Process.Pid), home)

	status, key, stderr := invoke(t, home, "guest", "key", "default")
	stored, err := os.ReadFile(filepath.Join(home, "keys", "default"))
	if status != 0 || err != nil || key != string(stored) || len(strings.TrimSpace(key)) != 64 {
		t.Errorf("guest key: %d, %q, %s; the file has %q, %v", status, key, stderr, stored, err)
	}
	status, _, stderr = invoke(t, home, "guest", "key", "other")
	wantError(t, status, stderr, 1, "other", "default")
	stop(t, daemon)
	if status, again, _ := invoke(t, home, "guest", "key", "default"); status != 0 || again != key {
		t.Errorf("guest key without a daemon: %d, %q", status, again)
	}
}
