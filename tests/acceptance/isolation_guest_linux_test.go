package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// inGuest is a command in the namespaces of an agent that was started through
// unshare: its processes and mounts.
func (b *bed) inGuest(args ...string) *exec.Cmd {
	b.t.Helper()
	enter := []string{"nsenter", "--target", fmt.Sprint(b.childOf(b.agent)), "--pid", "--mount"}
	return exec.Command(enter[0], append(enter[1:], args...)...)
}

// startManager starts a process that the agent, and no agent of another test on
// this machine, sees as sysbox-mgr: the name that /proc has for it is another one
// in the agent's mount namespace. ends ends it.
func (b *bed) startManager() (ends func()) {
	b.t.Helper()
	name := filepath.Join(b.dir, "comm")
	must(b.t, os.WriteFile(name, []byte("sysbox-mgr\n"), 0o644))
	p := b.talk(b.guest, b.inGuest("sh", "-ec", `sleep 1000 & mount --bind "$0" /proc/$!/comm; read nothing; kill $!`, name))
	return func() {
		p.Types("")
		<-p.done
	}
}

// G2, C4: sysbox begins to run in the guest: everything closes within 2 s, with
// its flows. It ends: everything is back.
func TestG2SysboxRuns(t *testing.T) {
	t.Parallel()
	b := startIsolationBed(t, bedConfig{})
	b.need("nsenter")
	served := b.serve("127.0.0.1:7000")
	served.opens()
	for range 2 {
		began := time.Now()
		ends := b.startManager()
		t.Logf("closed after %v", served.closes(began))
		b.awaitIsolation(control.Blocked, "on", "guest of link vm", "sysbox is running", "sysbox-mgr, process", "to resolve it, stop")
		b.isRefused([]string{"enable"}, "guest of link vm", "sysbox-mgr")
		ends()
		t.Logf("open again after %v", served.opens())
		b.awaitIsolation(control.On, "off", "guest of link vm", "no sysbox")
	}
}

// G2: an engine of the guest has a container with sysbox-runc, which warns; then
// one has it as its default runtime, which closes everything.
func TestG2SysboxEngine(t *testing.T) {
	t.Parallel()
	// In a pid namespace the engine would lack its /proc.
	b := startIsolationBed(t, bedConfig{through: []string{"unshare", "--mount"}})
	served := b.serve("127.0.0.1:7000")
	served.opens()
	runc := b.need("runc")
	const warning = "one container has sysbox as its runtime"
	e := b.startEngine(engineConfig{
		inGuest: true,
		flags:   []string{"--add-runtime", "sysbox-runc=" + runc},
	})
	e.container("isolated", "--runtime", "sysbox-runc", image, "busybox", "sleep", "1000")
	wait.Eventually(t, patience, "status warns", func() error {
		s, err := b.told()
		if err == nil && !anyHas(s.Warnings, []string{"guest of link vm", warning, "container isolated"}) {
			err = fmt.Errorf("it warns of %q", s.Warnings)
		}
		if err == nil && s.HostNetworking != control.On {
			t.Errorf("host networking is %s: %s", s.HostNetworking, s.HostNetworkingReason)
		}
		return err
	})
	must(t, hello(served.flows[0])) // nothing was cut
	b.exits(0, "on", "enable")
	e.run(nil, "rm", "--force", "isolated")
	wait.Eventually(t, patience, "status does not warn", func() error {
		s, err := b.told()
		if err == nil && anyHas(s.Warnings, []string{warning}) {
			err = fmt.Errorf("it warns of %q", s.Warnings)
		}
		return err
	})

	e.daemon.terminate()
	e.config.flags = append(e.config.flags, "--default-runtime", "sysbox-runc")
	served.opens()
	e.start()
	t.Logf("closed after %v", served.closes(time.Now())) // dockerd answers since a moment ago
	b.awaitIsolation(control.Blocked, "on", "guest of link vm", "sysbox is the engine's default runtime", "sysbox-runc", "/etc/docker/daemon.json")
	e.daemon.terminate()
	t.Logf("open again after %v", served.opens())
}

// inUserNamespace is what an agent is started through to be in a user namespace.
var inUserNamespace = slices.Concat(alone, []string{"--user", "--map-root-user"})

// newUserNamespaceBed is a bed whose agent is in a user namespace.
func newUserNamespaceBed(t *testing.T) *bed {
	t.Helper()
	b := newIsolationBed(t, bedConfig{through: inUserNamespace})
	if out, err := runFor(b.guest, patience, exec.Command(inUserNamespace[0], append(slices.Clone(inUserNamespace[1:]), "true")...)); err != nil {
		t.Skipf("no user namespaces here: %s, %v", out, err)
	}
	return b
}

// traceBinds starts the daemon, watched for what it binds. What it returns gives
// the addresses so far.
func (b *bed) traceBinds() (bound func() string) {
	b.t.Helper()
	strace := b.need("strace")
	trace := filepath.Join(b.dir, "binds")
	cmd := b.command("up")
	// The daemon stays this process's child, and its tracer is another one.
	args := append([]string{strace, "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=bind", "-e", "signal=none", "-o", trace}, cmd.Args...)
	cmd.Path, cmd.Args = args[0], args
	b.daemon = b.spawn(b.host, "daemon", cmd)
	if err := wait.Try(patience, func() error { _, err := b.status(); return err }); err != nil {
		b.t.Skipf("strace does not work here: %v: %s", err, b.daemon.output())
	}
	b.follow()
	return func() string {
		text, err := readFile(trace)
		must(b.t, err)
		if !strings.Contains(text, "control.sock") { // then it would not show the others
			b.t.Errorf("the trace lacks what the daemon has bound:\n%s", text)
		}
		return text
	}
}

// G2: the agent is in a user namespace, as in a container of Enhanced Container
// Isolation. What listened there before is never open on the host, not for a
// moment, nor when the agent is started again.
func TestG2UserNamespace(t *testing.T) {
	t.Parallel()
	b := newUserNamespaceBed(t)
	served := b.serve("127.0.0.1:7000")
	bound := b.traceBinds()
	b.startAgent()
	b.awaitLink()
	evidence := []string{"guest of link vm", "in a user namespace", "uid_map", "to resolve it, run vmbridge-guest outside"}
	b.awaitIsolation(control.Blocked, "on", evidence...)
	b.view.port("tcp 127.0.0.1:7000", control.PortDenied)
	for range 4 {
		b.killAgent()
		b.startAgent()
		b.staysBlocked(served, linkGraceAndMore)
		b.awaitLink()
		b.view.port("tcp 127.0.0.1:7000", control.PortDenied)
	}
	b.isRefused([]string{"enable"}, evidence...)
	if text := bound(); strings.Contains(text, "htons(7000)") {
		t.Errorf("the daemon has opened the port:\n%s", text)
	}
	served.wasNeverOpen()

	// Else the test says nothing: another agent, with other rights.
	b.killAgent()
	b.config.through = alone
	b.startAgent()
	served.opens()
	if text := bound(); !strings.Contains(text, "htons(7000)") {
		t.Errorf("the trace lacks a port that is open:\n%s", text)
	}
}

// linkGraceAndMore is longer than forwards outlive a link that is down.
const linkGraceAndMore = 1500 * time.Millisecond

// staysBlocked looks at the ports for a while, without a pause.
func (b *bed) staysBlocked(s *served, while time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(while); time.Now().Before(end) && !b.t.Failed(); {
		s.staysClosed()
	}
}

// G2: of two guests one is isolated: both are closed, and the message names its
// link. Its agent ends, or its link is taken away: the other one opens.
func TestG2OneOfTwo(t *testing.T) {
	t.Parallel()
	b := newUserNamespaceBed(t)
	b.config.through = alone
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	served := b.serve("127.0.0.1:7000")
	served.opens()
	isolated := *b
	isolated.config.through = inUserNamespace
	second := isolated.another("second")
	behind := second.serve("127.0.0.1:7001")
	both := b.settingsTextWith([]string{b.linkEntry(), second.linkEntry()}, "")

	for _, ends := range []func(){
		func() { second.killAgent() },
		func() { b.write(b.settingsText("")) },
	} {
		began := time.Now()
		b.write(both)
		t.Logf("closed after %v", served.closes(began))
		s := b.awaitIsolation(control.Blocked, "on", "guest of link second", "in a user namespace")
		if strings.Contains(s.HostNetworkingReason, "link vm") {
			t.Errorf("the reason names the other link: %s", s.HostNetworkingReason)
		}
		second.awaitPort("tcp 127.0.0.1:7001", control.PortDenied)
		behind.staysClosed()
		b.isRefused([]string{"enable"}, "guest of link second")
		ends()
		t.Logf("open again after %v", served.opens())
		b.awaitIsolation(control.On, "off", "guest of link vm")
		behind.staysClosed()
		if !second.agent.running() {
			b.write(b.settingsText(""))
			must(t, os.RemoveAll(second.linkSocket()))
			second.startAgent()
		}
	}
}

// G2: an agent of an earlier version tells nothing of isolation, and one of an
// odd one tells nothing of itself: that is unknown, with the reason, and blocks
// nothing.
func TestG2SilentAgent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		about *message.Agent
		says  []string
	}{
		{"earlier version", &message.Agent{Version: "0.1", Kernel: "6.1", Detection: message.Feature{State: "poll"}},
			[]string{"guest of link vm", "of a version that does not look"}},
		{"nothing at all", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newIsolationBed(t, bedConfig{})
			g := &hostileGuest{up: func(s *link.Session) {
				if c.about != nil {
					_ = s.Send(message.Message{Agent: c.about})
				}
				_ = s.Send(message.Message{Listeners: &message.Listeners{Reset: true, Add: []message.Listener{
					{Key: message.Key{Protocol: message.TCP, Address: mustAddr("127.0.0.1"), Port: 7001}},
				}}})
			}}
			g.serve(b)
			b.startDaemon()
			b.awaitLink()
			b.view.port("tcp 127.0.0.1:7001", control.PortOpen)
			b.awaitIsolation(control.On, "unknown", c.says...)
			b.exits(0, "on", "enable")
		})
	}
}
