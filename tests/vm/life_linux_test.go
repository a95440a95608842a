package vm_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/echo"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// slow is what the rows' times are multiplied with where an emulated machine has
// to do something, on a host that may be busy. What was measured is in the log.
const slow = 4

const (
	servedPort = 7000 // of the machine
	hostPort   = 7100 // of the host's own server
)

// lasting starts a server in the machine that no test's end ends, and one on the
// host, and waits until both are reached.
func (s *system) lasting() {
	s.t.Helper()
	s.startLasting()
	go echo.TCP(s.listen(at("127.0.0.1", hostPort)))
	s.serves(servedPort)
	s.reaches(at("127.0.0.1", hostPort))
}

func (s *system) startLasting() {
	s.t.Helper()
	port := fmt.Sprint(servedPort)
	s.run("systemd-run", "--quiet", "--collect", "--unit=lasting", "server", "tcp", "::", port, port, "udp", "::", port, port)
}

// unlasting ends the server.
func (s *system) unlasting() {
	s.run("systemctl", "stop", "lasting")
	s.gone("tcp", servedPort)
	s.gone("udp", servedPort)
}

// flows are a connection to the machine and one from it.
func (s *system) flows() map[string]net.Conn {
	s.t.Helper()
	from, err := s.guest.Connect(s.t.Context(), "tcp", at("127.0.0.1", hostPort))
	must(s.t, err)
	s.closeLater(from)
	flows := map[string]net.Conn{"to the machine": s.connect(at("127.0.0.1", servedPort)), "from the machine": from}
	s.live(flows)
	return flows
}

// live checks that flows still carry.
func (s *system) live(flows map[string]net.Conn) {
	s.t.Helper()
	for name, c := range flows {
		must(s.t, c.SetDeadline(time.Now().Add(patience)))
		if err := exchange(c, []byte("alive\n")); err != nil {
			s.t.Errorf("the flow %s: %v", name, err)
		}
	}
}

// recovers checks that everything is back within a time of since: both directions,
// and nothing twice.
func (s *system) recovers(since time.Time, within time.Duration) {
	s.t.Helper()
	err := wait.Try(within-time.Since(since), func() error {
		return errors.Join(s.answers(servedPort), s.reach(at("127.0.0.1", hostPort)))
	})
	if err != nil {
		s.t.Errorf("%v later: %v", time.Since(since), err)
	}
	s.t.Logf("full service again after %v", time.Since(since).Round(time.Millisecond))
	s.awaitOpen(2)
}

// agent is the process id of the agent in the machine.
func (s *system) agent() int {
	s.t.Helper()
	pid, err := strconv.Atoi(s.run("systemctl", "show", "--property=MainPID", "--value", "vmbridge-guest"))
	must(s.t, err)
	return pid
}

// noRestart has systemd leave the agent dead.
const noRestart = "/run/systemd/system/vmbridge-guest.service.d"

// C1, G3: the agent is killed. The host's ports are free, however long it stays
// away, and when it is back there is full service again.
func testAgentKilled(t *testing.T, s *system) {
	s.lasting()
	defer s.unlasting()
	s.run("sh", "-c", "mkdir -p "+noRestart+" && printf '[Service]\nRestart=no\n' > "+noRestart+"/tests.conf && systemctl daemon-reload")
	s.run("kill", "-9", fmt.Sprint(s.agent()))
	s.released(time.Now(), servedPort)
	s.run("sh", "-c", "rm -r "+noRestart+" && systemctl daemon-reload && systemctl reset-failed vmbridge-guest")
	s.run("systemctl", "start", "vmbridge-guest")
	s.recovers(time.Now(), slow*5*time.Second)

	// By itself.
	before := s.agent()
	s.run("kill", "-9", fmt.Sprint(before))
	wait.Eventually(t, patience, "systemd starts it again", func() error {
		if pid := s.agent(); pid == 0 || pid == before {
			return fmt.Errorf("it is %d", pid)
		}
		return nil
	})
	s.recovers(time.Now(), slow*5*time.Second)
}

// G3: the daemon is killed, and its ports are free; it comes back while the machine
// runs, finds the device, and serves again.
func testDaemonKilled(t *testing.T, s *system) {
	s.lasting()
	defer s.unlasting()
	device, err := s.device()
	must(t, err)
	s.daemon.kill()
	s.released(time.Now(), servedPort)
	started := time.Now()
	s.startDaemon()
	s.recovers(started, slow*5*time.Second)
	if now, err := s.device(); now != device || err != nil {
		t.Errorf("the device was process %d, and is %d, %v", device, now, err)
	}
}

// G4: the machine's clock jumps an hour, to and fro, and nothing happens: flows
// live on, and the link does not go down.
func testClock(t *testing.T, s *system) {
	s.lasting()
	defer s.unlasting()
	flows := s.flows()
	ups := strings.Count(s.daemon.Said.String(), "link up")
	for _, jump := range []string{"+1 hour", "-1 hour", "-1 hour", "+1 hour"} {
		s.run("date", "--set", jump)
		s.live(flows)
		s.recovers(time.Now(), slow*2*time.Second)
	}
	if now := strings.Count(s.daemon.Said.String(), "link up"); now != ups {
		t.Errorf("the link has come up %d times meanwhile", now-ups)
	}
}

// G4: the machine stands still for a minute, and forwards recover within 2 s of
// its return.
func testPause(t *testing.T, s *system) {
	const pause = time.Minute
	s.lasting()
	defer s.unlasting()
	s.machine.Monitor("stop")
	paused := time.Now()
	wait.Eventually(t, patience, "the daemon notices", func() error {
		l, err := s.link()
		if err == nil && l.State == control.LinkUp {
			err = errors.New("the link is up")
		}
		return err
	})
	t.Logf("noticed after %v", time.Since(paused).Round(time.Millisecond))
	<-time.After(pause - time.Since(paused))
	s.machine.Monitor("cont")
	s.recovers(time.Now(), slow*2*time.Second)
}

// C1, G3: the machine boots again, with or without notice. The host's ports are
// free, the agent is started by the machine's service manager, and serves.
func testReboot(t *testing.T, s *system) {
	for _, way := range []struct {
		name   string
		reboot func(s *system)
	}{
		{"reboot", func(s *system) { s.run("systemctl", "reboot") }},
		{"reset", func(s *system) { s.machine.Monitor("system_reset") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			s := s.in(t)
			s.lasting()
			flow := s.connect(at("127.0.0.1", servedPort))
			must(t, exchange(flow, []byte("before\n")))
			way.reboot(s)
			must(t, flow.SetDeadline(time.Now().Add(patience)))
			if _, err := flow.Read(make([]byte, 1)); err == nil {
				t.Error("the flow goes on")
			}
			s.released(time.Now(), servedPort)
			s.awaitBoot()
			s.awaitLink()
			s.serve(servedPort)
		})
	}
}

// C1: the machine is killed: the host's ports are free. Another one, which has to
// be given the agent, takes its place at the same device.
func testMachineKilled(t *testing.T, s *system) {
	s.lasting()
	s.machine.Kill()
	s.released(time.Now(), servedPort)
	s.start()
	s.bringAgent()
	s.install(s.key())
	s.awaitLink()
	s.startLasting()
	s.recovers(time.Now(), slow*5*time.Second)
}

// The agent goes away as it came.
func testUninstall(t *testing.T, s *system) {
	s.run("vmbridge-guest", "uninstall")
	wait.Eventually(t, patience, "nobody answers", func() error { return s.linkIs(control.LinkDown, "") })
	if out, err := s.try("systemctl", "cat", "vmbridge-guest"); err == nil || strings.Contains(out, "ExecStart") {
		t.Errorf("systemd still knows %q", out)
	}
	if out := s.run("sh", "-c", "ls /etc/vmbridge /usr/local/bin/vmbridge-guest 2>/dev/null || true"); out != "" {
		t.Errorf("there are still %q", out)
	}
}
