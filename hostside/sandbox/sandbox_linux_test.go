package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// A clean exit leaves no process, no name and no mount.
func TestLifeCycle(t *testing.T) {
	needRoot(t)
	logger, hook := test.NewNullLogger()
	s := startGuest(t, shortHome(t), logger)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	pid, ns := ask(t, s, 0)
	if ns != nsLink(t, s.NetNS()) || ns == own {
		t.Errorf("the agent is in %s, the sandbox is %s, we are in %s", ns, nsLink(t, s.NetNS()), own)
	}
	wait.Until(t, restartTime, "the agent's log line arrives", func() bool {
		for _, e := range hook.AllEntries() {
			if e.Message == "agent: listening" && e.Level == logrus.InfoLevel && e.Data["sandbox"] == "test" {
				return strings.HasPrefix(fmt.Sprint(e.Data["args"]), "--listen "+s.URL()+" --key /none")
			}
		}
		return false
	})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if !gone(pid) {
		t.Errorf("the agent (pid %d) lives on", pid)
	}
	if _, err := os.Lstat(s.NetNS()); !errors.Is(err, os.ErrNotExist) || mounted(t, s.NetNS()) {
		t.Errorf("%s is left: %v, mounted: %v", s.NetNS(), err, mounted(t, s.NetNS()))
	}
}

// The loopback of the guest works, for IPv4 and, where the machine has it,
// IPv6, and is not the host's.
func TestLoopback(t *testing.T) {
	needRoot(t)
	s := startGuest(t, shortHome(t), quiet())
	addresses := []string{"127.0.0.1:0"}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		addresses = append(addresses, "[::1]:0")
	}
	for _, address := range addresses {
		var l net.Listener
		err := inThread(func() error {
			ns, err := openNetNS(s.NetNS())
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := enterNetNS(ns); err != nil {
				return err
			}
			if l, err = net.Listen("tcp", address); err != nil {
				return err
			}
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			return conn.Close()
		})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			conn.Close()
			t.Errorf("%s in the sandbox is reachable from the host directly", l.Addr())
		}
		l.Close()
	}
}

// G3: the agent is killed, and there is another one, in the same namespace.
func TestAgentKilled(t *testing.T) {
	needRoot(t)
	s := startGuest(t, shortHome(t), quiet())
	pid, ns := ask(t, s, 0)
	for range 3 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		again, nsAgain := ask(t, s, pid)
		if nsAgain != ns {
			t.Errorf("the new agent is in %s, the old one was in %s", nsAgain, ns)
		}
		pid = again
	}
}

// G3: the daemon is killed: its agent goes with it, the programs in the
// namespace live on, and the next daemon takes the namespace over.
func TestAdoption(t *testing.T) {
	needRoot(t)
	home := shortHome(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	killed := exec.Command(self)
	killed.Env = append(os.Environ(), "SANDBOX_TEST_ROLE=daemon", "SANDBOX_TEST_HOME="+home)
	out, err := killed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killed.Process.Kill()
		killed.Wait()
	}()
	line, _ := bufio.NewReader(out).ReadString('\n')
	netNS := strings.TrimSpace(line)
	if strings.Contains(netNS, ErrNotPermitted.Error()) {
		t.Skip(netNS)
	}
	before := nsLink(t, netNS)

	resident := exec.Command("nsenter", "--net="+netNS, "cat")
	stdin, err := resident.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := resident.Start(); err != nil {
		t.Skipf("needs nsenter: %v", err)
	}
	defer func() {
		stdin.Close()
		resident.Wait()
	}()
	wait.Until(t, restartTime, "the program is in the namespace", func() bool {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", resident.Process.Pid))
		return ns == before
	})
	socket, err := socketPath(home, "test")
	if err != nil {
		t.Fatal(err)
	}
	oldAgent, _ := ask(t, &Sandbox{socket: socket}, 0)

	killed.Process.Kill()
	killed.Wait()
	wait.Until(t, restartTime, "the killed daemon's agent is gone", func() bool { return gone(oldAgent) })

	s := startGuest(t, home, quiet())
	if s.NetNS() != netNS || nsLink(t, netNS) != before {
		t.Errorf("got %s (%s), want %s (%s)", s.NetNS(), nsLink(t, s.NetNS()), netNS, before)
	}
	if _, ns := ask(t, s, oldAgent); ns != before {
		t.Errorf("the new agent is in %s, the program is in %s", ns, before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if gone(resident.Process.Pid) {
		t.Error("the program in the namespace has ended")
	}
	if mounted(t, netNS) {
		t.Errorf("%s is still mounted", netNS)
	}
}

// A file that is no namespace, as a crash at the wrong instant leaves it, is
// replaced.
func TestLeftoverFile(t *testing.T) {
	needRoot(t)
	home := shortHome(t)
	path := filepath.Join(netNSDir, nsName(home, "test"))
	if err := errors.Join(os.MkdirAll(netNSDir, 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s := startGuest(t, home, quiet())
	if _, ns := ask(t, s, 0); ns != nsLink(t, s.NetNS()) {
		t.Errorf("the agent is in %s", ns)
	}
}

// The end of the context stops the agent, without Close.
func TestContext(t *testing.T) {
	needRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Config{Name: "test", Home: shortHome(t), KeyFile: "/none", AgentPath: self, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := ask(t, s, 0)
	cancel()
	wait.Until(t, restartTime, "the agent ends", func() bool { return gone(pid) })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestExec(t *testing.T) {
	needRoot(t)
	s := startGuest(t, shortHome(t), quiet())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_ROLE=shell", "SANDBOX_TEST_NETNS="+s.NetNS())
	out, err := cmd.Output()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 7 || strings.TrimSpace(string(out)) != nsLink(t, s.NetNS()) {
		t.Errorf("got %q, %v; want %s and exit status 7", out, err, nsLink(t, s.NetNS()))
	}
}

func TestStartErrors(t *testing.T) {
	home := shortHome(t)
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		config Config
		want   error
	}{
		"no agent":        {Config{Name: "a", Home: home, AgentPath: "/none/vmbridge-guest"}, os.ErrNotExist},
		"long path":       {Config{Name: "a", Home: "/" + strings.Repeat("long", 30)}, ErrSocketPath},
		"agent is a file": {Config{Name: "a", Home: home, AgentPath: file}, os.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Logger = quiet()
			_, err := Start(t.Context(), test.config)
			if !errors.Is(err, test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line about %v", err, test.want)
			}
		})
	}
	for _, name := range []string{"", "..", "a/b", "/a", "."} {
		if path, err := socketPath("/h", name); err == nil {
			t.Errorf("the name %q gives %s", name, path)
		}
	}
}

// An agent that cannot be started is an error at once, and leaves nothing.
func TestBrokenAgent(t *testing.T) {
	needRoot(t)
	home := shortHome(t)
	broken := filepath.Join(home, "broken")
	if err := os.WriteFile(broken, []byte("\x7fELF not really"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Name: "test", Home: home, AgentPath: broken, Logger: quiet()})
	if errors.Is(err, ErrNotPermitted) {
		t.Skip(err)
	}
	if !errors.Is(err, syscall.ENOEXEC) {
		t.Errorf("got %v", err)
	}
	if path := filepath.Join(netNSDir, nsName(home, "test")); mounted(t, path) {
		t.Errorf("%s is left", path)
	}
}
