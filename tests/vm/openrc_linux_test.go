package vm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/vm"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestOpenRC installs the agent on a machine with OpenRC: it comes up, and again
// after it was killed, and with the machine (G3), and goes away as it came.
func TestOpenRC(t *testing.T) {
	s := startSystem(t, vm.OpenRC)
	s.bringAgent()
	s.install(s.key())
	s.awaitLink()
	s.awaitWhole()
	s.serve(servedPort)

	before := s.run("pgrep", "-f", "vmbridge-guest serve")
	killed := time.Now()
	s.run("pkill", "-9", "-x", "vmbridge-guest")
	wait.Eventually(t, patience, "OpenRC starts the agent again", func() error {
		pid, err := s.try("pgrep", "-f", "vmbridge-guest serve")
		if err == nil && pid == before {
			err = errors.New("it is the same")
		}
		return err
	})
	wait.Eventually(t, patience, "service is back", func() error { return s.answers(servedPort) })
	t.Logf("full service again %v after the agent was killed", time.Since(killed).Round(time.Millisecond))

	_, _ = s.try("reboot") // the order may end with the machine
	s.awaitBoot()
	s.awaitLink()

	s.run("vmbridge-guest", "uninstall")
	if out := s.run("sh", "-c", "ls /etc/vmbridge /etc/init.d/vmbridge-guest /usr/local/bin/vmbridge-guest 2>/dev/null || true"); out != "" {
		t.Errorf("there are still %q", out)
	}
	if out, err := s.try("pgrep", "-x", "vmbridge-guest"); err == nil || strings.TrimSpace(out) != "" {
		t.Error(fmt.Sprint("the agent still runs: ", out))
	}
}
