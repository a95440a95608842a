package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// closeTime is how long forwards may stay once Enhanced Container Isolation is
// on (G2).
const closeTime = 2 * time.Second

// alone gives the agent a pid namespace of its own, so that it sees no process
// that another test has started.
var alone = []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}

// killAgent kills an agent that was started through alone: unshare ends first, and
// takes the agent with it a moment later.
func (b *bed) killAgent() {
	b.t.Helper()
	b.agent.kill()
	wait.Eventually(b.t, patience, "the agent has ended", func() error {
		c, err := net.Dial("unix", b.linkSocket())
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("it answers")
	})
}

// newIsolationBed makes a bed whose user has a home directory of its own, so that
// this machine's Docker Desktop does not count, and whose agent sees nothing of
// this machine's processes.
func newIsolationBed(t *testing.T, config bedConfig) *bed {
	t.Helper()
	config.fromFile = true
	b := newBed(t, config)
	b.need("unshare")
	if out, err := runFor(b.guest, patience, exec.Command(alone[0], append(alone[1:], "true")...)); err != nil {
		t.Skipf("no pid namespaces here: %s, %v", out, err)
	}
	if b.config.through == nil {
		b.config.through = alone
	}
	must(t, os.Mkdir(b.userHome(), 0o755))
	b.config.environ = append(b.config.environ, "HOME="+b.userHome(), "SUDO_UID=", "SUDO_USER=")
	return b
}

// startIsolationBed makes one and waits until its link is up.
func startIsolationBed(t *testing.T, config bedConfig) *bed {
	t.Helper()
	b := newIsolationBed(t, config)
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	return b
}

func (b *bed) userHome() string { return filepath.Join(b.dir, "user") }

// store and older are the user's files of Docker Desktop.
func (b *bed) store() string {
	return filepath.Join(b.userHome(), ".docker", "desktop", "settings-store.json")
}
func (b *bed) older() string {
	return filepath.Join(b.userHome(), ".docker", "desktop", "settings.json")
}

// adminFile is what Docker Desktop's administrators write.
const adminFile = "/usr/share/docker-desktop/admin-settings.json"

// ownUsrShare hides /usr/share, in the mount namespace of daemon and commands
// only, behind an empty one.
func (b *bed) ownUsrShare() {
	b.t.Helper()
	cmd := b.etc.enter(false)
	cmd = append(cmd, "sh", "-ec", `mount -t tmpfs none /usr/share && mkdir "$0"`, filepath.Dir(adminFile))
	_, err := runFor(b.host, patience, exec.Command(cmd[0], cmd[1:]...))
	must(b.t, err)
}

// put writes a file, below directories that it makes.
func put(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// told is what vmbridge status --json prints.
func (b *bed) told() (s control.Status, err error) {
	out, err := b.vmbridge("status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// awaitIsolation waits until the status says how host networking and isolation
// stand, with all that the evidence is to name on one line of it.
func (b *bed) awaitIsolation(networking, isolation string, evidence ...string) (s control.Status) {
	b.t.Helper()
	wait.Eventually(b.t, patience, fmt.Sprintf("host networking is %s, isolation %s", networking, isolation), func() (err error) {
		if s, err = b.told(); err != nil {
			return err
		}
		if s.HostNetworking != networking || s.Isolation != isolation {
			return fmt.Errorf("they are %s (%s), %s: %q", s.HostNetworking, s.HostNetworkingReason, s.Isolation, s.Evidence)
		}
		if len(evidence) > 0 && !anyHas(s.Evidence, evidence) {
			return fmt.Errorf("%q is not in %q", evidence, s.Evidence)
		}
		return nil
	})
	return s
}

// anyHas tells whether one of the lines has all the parts.
func anyHas(lines, parts []string) bool {
	for _, line := range lines {
		if has(line, parts) == nil {
			return true
		}
	}
	return false
}

func has(line string, parts []string) error {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return fmt.Errorf("%q is not in %q", part, line)
		}
	}
	return nil
}

// isRefused checks that a command ends with exit status 3 and one line that says
// certain things.
func (b *bed) isRefused(args []string, says ...string) {
	b.t.Helper()
	cmd := b.command(args...)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	var stdout, stderr talk.Transcript
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	must(b.t, b.host.Start(cmd))
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	line := stderr.String()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		b.t.Errorf("vmbridge %v ended with %v, want exit status 3: %s", args, err, line)
	}
	if !strings.HasPrefix(line, "vmbridge: ") || strings.Count(line, "\n") != 1 || stdout.String() != "" {
		b.t.Errorf("vmbridge %v: want one line, got %q and %q", args, line, stdout.String())
	}
	if err := has(line, says); err != nil {
		b.t.Errorf("vmbridge %v: %v", args, err)
	}
}

// served is a TCP and a UDP server in the guest, each with a flow of the host's.
type served struct {
	b       *bed
	address string
	flows   []net.Conn
}

// serve starts the servers, whose ports need not be open.
func (b *bed) serve(address string) *served {
	b.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		b.echo(socket.Spec{Network: network, Address: address})
	}
	return &served{b: b, address: address}
}

// opens waits until both answer, and keeps a flow through each. It gives the time
// that this took.
func (s *served) opens() time.Duration {
	s.b.t.Helper()
	began := time.Now()
	s.b.reach("tcp", s.address)
	took := time.Since(began)
	s.b.reach("udp", s.address)
	s.flows = nil
	for _, network := range []string{"tcp", "udp"} {
		c := s.b.dial(network, s.address)
		must(s.b.t, hello(c))
		s.flows = append(s.flows, c)
	}
	return took
}

// closes checks that both ports are closed, and the flows cut, soon after a time.
// It gives how long that took.
func (s *served) closes(since time.Time) time.Duration {
	s.b.t.Helper()
	left := func() time.Duration { return max(0, closeTime-time.Since(since)) }
	for _, network := range []string{"tcp", "udp"} {
		if err := wait.Try(left(), func() error { return closed(s.b.host, network, s.address) }); err != nil {
			s.b.t.Errorf("%s %s is not closed %v later: %v", network, s.address, time.Since(since), err)
		}
	}
	took := time.Since(since)
	for _, c := range s.flows {
		// A UDP client of the host learns it when it sends again.
		if c.LocalAddr().Network() == "udp" {
			_, _ = c.Write([]byte("still there?"))
		}
		must(s.b.t, c.SetReadDeadline(time.Now().Add(left()+100*time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			s.b.t.Errorf("a %s flow goes on: %v", c.LocalAddr().Network(), err)
		} else if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) && !refused(err) {
			s.b.t.Errorf("a %s flow ended with %v", c.LocalAddr().Network(), err)
		}
		c.Close()
	}
	s.flows = nil
	return took
}

// staysClosed is called while the ports are to be closed, and opens nothing.
func (s *served) staysClosed() {
	s.b.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if err := closed(s.b.host, network, s.address); err != nil {
			s.b.t.Errorf("%s %s: %v", network, s.address, err)
		}
	}
}

// staysClosedWhile rewrites a file in place, eight times, and checks that the ports
// stay closed. The file is empty, then has each part of its text in turn, for a
// pause each: long enough to be seen, and shorter than what counts as an end.
func (s *served) staysClosedWhile(path string, pause time.Duration, parts ...string) {
	s.b.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(s.b.t, err)
	defer f.Close()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for range 8 {
		for _, part := range append([]string{""}, parts...) {
			must(s.b.t, f.Truncate(int64(len(part))))
			_, err := f.WriteAt([]byte(part), 0)
			must(s.b.t, err)
			for waiting := true; waiting; {
				s.staysClosed()
				select {
				case <-tick.C:
					waiting = false
				default:
				}
			}
		}
	}
}

// wasNeverOpen looks at all that has been shown of the ports.
func (s *served) wasNeverOpen() {
	s.b.t.Helper()
	for _, network := range []string{"tcp ", "udp "} {
		for _, e := range s.b.view.events(network + s.address) {
			if e.Port.State == control.PortOpen {
				s.b.t.Errorf("%s%s was open: %+v", network, s.address, e)
			}
		}
	}
}
