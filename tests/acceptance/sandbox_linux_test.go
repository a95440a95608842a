package acceptance

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// startSandbox does what make run does: up --enable, and nothing else.
func startSandbox(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, bedConfig{})
	var ns control.Sandbox
	t.Cleanup(func() { // behind the daemon, which does it unless it was killed
		_ = unix.Unmount(ns.NetNS, unix.MNT_DETACH)
		_ = os.Remove(ns.NetNS)
	})
	b.daemon = b.spawn(b.host, "daemon", b.command("up", "--enable"))
	b.follow()
	var err error
	ns, err = control.NewClient(b.home).Sandbox(t.Context(), "")
	must(t, err)
	b.awaitLink()
	return b
}

// shell runs a program in the sandbox, as vmbridge shell does it.
func (b *bed) shell(args ...string) *talker {
	b.t.Helper()
	return b.talk(b.host, b.command(append([]string{"shell"}, args...)...))
}

// The newcomer's first minutes, as the README has them: lines typed at either end
// appear at the other, TCP and UDP, and ports --watch shows the port come and go.
// What was made goes away with the daemon.
func TestSandbox(t *testing.T) {
	t.Parallel()
	b := startSandbox(t)
	nc := b.need("nc.openbsd")
	if hint := "shell nc -lkv 0.0.0.0 8000"; !strings.Contains(b.daemon.output(), hint) {
		t.Errorf("the daemon does not say what to type: %s", b.daemon.output())
	}
	watch := b.talk(b.host, b.command("ports", "--watch"))
	watch.Shows("watching")
	server := b.shell(nc, "-lkv", "0.0.0.0", "8000")
	watch.Shows("appear  tcp 0.0.0.0:8000  -> 0.0.0.0:8000  open")
	talk.Chat(b.nc(b.host, "localhost", "8000"), server, "tcp")
	server.kill()
	watch.Shows("gone    tcp 0.0.0.0:8000")

	server = b.shell(nc, "-luv", "0.0.0.0", "8000")
	watch.Shows("appear  udp 0.0.0.0:8000  -> 0.0.0.0:8000  open")
	talk.Chat(b.nc(b.host, "-u", "localhost", "8000"), server, "udp")

	ns, err := control.NewClient(b.home).Sandbox(t.Context(), "")
	must(t, err)
	b.daemon.terminate()
	if _, err := os.Stat(ns.NetNS); !os.IsNotExist(err) {
		t.Errorf("the namespace %s is left: %v", ns.NetNS, err)
	}
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
}

// G3, in the sandbox: its agent is killed, and the daemon has another one; the
// daemon is killed, and the next one takes the same guest over, whose programs
// have gone on.
func TestG3Sandbox(t *testing.T) {
	t.Parallel()
	b := startSandbox(t)
	server := b.shell(built.server(t), "tcp", "::", "7000", "7000", "udp", "::", "7000", "7000")
	b.servesBoth("7000")
	serves := func(what string) {
		since := time.Now()
		for _, network := range []string{"tcp", "udp"} {
			err := wait.Try(5*time.Second-time.Since(since), func() error { return try(b.host, network, "127.0.0.1:7000") })
			if err != nil {
				t.Errorf("%s: %s: %v", what, network, err)
			}
		}
		b.awaitCounts(2, 2)
	}
	agent := b.childOf(b.daemon)
	must(t, syscall.Kill(agent, syscall.SIGKILL))
	wait.Eventually(t, patience, "the agent is gone", func() error {
		if syscall.Kill(agent, 0) == nil {
			return fmt.Errorf("process %d is there", agent)
		}
		return nil
	})
	serves("another agent")
	b.daemon.kill()
	b.daemon = b.spawn(b.host, "daemon", b.command("up", "--enable"))
	b.follow()
	serves("another daemon")
	if !server.running() {
		t.Error("the guest's server has ended")
	}
	b.daemon.terminate()
}

// childOf is the one child of a process.
func (b *bed) childOf(p *process) int {
	b.t.Helper()
	for _, pid := range processes() {
		text, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		// "123 (name) S 1 ...": the name may contain anything.
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if fields[1] == fmt.Sprint(p.pid()) {
			return pid
		}
	}
	b.t.Fatalf("%s has no child", p.name)
	return 0
}
