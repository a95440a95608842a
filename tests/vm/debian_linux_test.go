package vm_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/vm"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// TestDebian boots a machine with systemd and Docker whose only device beside its
// disk is vsock, and holds the rows on it that a namespace cannot tell about.
func TestDebian(t *testing.T) {
	s := startSystem(t, vm.Debian)
	for _, sub := range []struct {
		name string
		test func(*testing.T, *system)
	}{
		{"G5Keys", testKeys}, // installs the agent
		{"Netcat", testNetcat},
		{"F2Refused", testRefused},
		{"D1HalfClose", testHalfClose},
		{"D3Reset", testReset},
		{"D8Bulk", testBulk},
		{"ManyFlows", testManyFlows},
		{"C4Toggle", testToggle},
		{"Conformance", testConformance},
		{"Docker", testDocker},
		{"C1G3AgentKilled", testAgentKilled},
		{"C1G3DaemonKilled", testDaemonKilled},
		{"G4Clock", testClock},
		{"G4Pause", testPause},
		{"C1G3Reboot", testReboot},
		{"C1MachineKilled", testMachineKilled},
		{"Uninstall", testUninstall},
	} {
		ok := t.Run(sub.name, func(t *testing.T) { sub.test(t, s.in(t)) })
		if !ok && sub.name == "G5Keys" {
			return
		}
	}
}

// bringAgent brings the program in, and nothing else.
func (s *system) bringAgent() {
	s.t.Helper()
	s.put(filepath.Join(s.programs, "vmbridge-guest"), "/root/vmbridge-guest")
}

// install has the agent install itself, as the README has it.
func (s *system) install(key string) {
	s.t.Helper()
	s.give(strings.NewReader(key), "/root/vmbridge-guest", "install", "--key-stdin")
}

// key is what the host has the machine's user type.
func (s *system) key() string {
	s.t.Helper()
	return s.vmbridge("guest", "key", linkName)
}

// G5: with a wrong key the link is refused, and says why; with the right one it
// comes up by itself.
func testKeys(t *testing.T, s *system) {
	if err := s.linkIs(control.LinkUp, ""); err == nil {
		t.Error("the link is up without an agent")
	}
	s.bringAgent()
	started := time.Now()
	s.install(linkkey.New().String())
	t.Logf("installed in %v", time.Since(started).Round(time.Millisecond))
	wait.Eventually(t, patience, "the link is refused", func() error { return s.linkIs(control.LinkRefused, "key") })
	s.install(s.key())
	s.awaitLink()
	s.awaitWhole()
}

// awaitWhole waits until the agent has all that the kernel offers.
func (s *system) awaitWhole() {
	s.t.Helper()
	wait.Eventually(s.t, patience, "eBPF and host reach", func() error {
		l, err := s.link()
		if err == nil && (l.HostReach.State != control.On || l.Detection.State != "ebpf") {
			err = errors.New(l.Detection.State + " " + l.Detection.Reason + ", " + l.HostReach.State + " " + l.HostReach.Reason)
		}
		return err
	})
}
