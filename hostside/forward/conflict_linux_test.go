package forward

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestConflicts: a real other process has the port, in the sight of root and of
// an ordinary user (B1, B2, B3).
func TestConflicts(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	testConflicts(t, startOther(t), func(pid int) string { return fmt.Sprintf("nc (pid %d)", pid) })
}

func TestConflictsAsUser(t *testing.T) {
	var other *exec.Cmd
	if !isolate.InNetnsAsUser(t, func() { other = startOther(t) }) {
		return
	}
	testConflicts(t, other, func(int) string { return "a process of uid 0 (root), hidden by the system" })
}

// startOther has nc listen on 0.0.0.0:8000.
func startOther(t *testing.T) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("nc")
	if err != nil {
		t.Skip("nc is not installed")
	}
	cmd := exec.Command(path, "-l", "-k", "0.0.0.0", "8000")
	in, err := cmd.StdinPipe() // holds nc; its end would end nc
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	wait.Until(t, 5*time.Second, "nc listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:8000")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return cmd
}

func testConflicts(t *testing.T, other *exec.Cmd, owner func(pid int) string) {
	r := realRig(t, nil)
	r.add("a", "tcp [::]:8000 dual", "udp 0.0.0.0:8000")
	wait.Until(t, 5*time.Second, "the conflict is reported", func() bool { return len(r.lines(logrus.WarnLevel)) > 0 })
	reason := "tcp 0.0.0.0:8000 is in use by " + owner(other.Process.Pid)
	equal(t, "log", r.lines(logrus.WarnLevel), []string{"port conflict: " + reason})
	equal(t, "listed", states(r.ForwardsOf(8000)), []string{
		"a tcp [::]:8000 (dual-stack) conflict [0.0.0.0 conflict :: open]", "a udp 0.0.0.0:8000 open [0.0.0.0 open]"})
	if got := r.ForwardsOf(8000)[0].Reason; got != reason {
		t.Errorf("reason %q, want %q", got, reason)
	}
	if got := ask("udp", "127.0.0.1:8000"); got != "a 127.0.0.1:8000" {
		t.Errorf("udp: %q", got)
	}
	if got := ask("tcp", "[::1]:8000"); got != "a [::1]:8000" {
		t.Errorf("tcp ::1: %q", got)
	}
	if os.Getuid() != 0 {
		return // an ordinary user cannot end it; the namespace's end does
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	wait.Until(t, 2*time.Second, "the forward opens", func() bool { return ask("tcp", "127.0.0.1:8000") == "a 127.0.0.1:8000" })
	equal(t, "log", r.lines(logrus.WarnLevel), []string{"port conflict: " + reason})
}

// TestPermission: an ordinary user is told of permissions (B4), and of TCP and
// UDP alike.
func TestPermission(t *testing.T) {
	if !isolate.InNetnsAsUser(t, nil) {
		return
	}
	r := realRig(t, nil)
	r.add("a", "tcp 127.0.0.1:80", "udp 0.0.0.0:80", "tcp 127.0.0.1:8080")
	for _, f := range r.ForwardsOf(80) {
		if f.State != Failed || !strings.HasPrefix(f.Reason, "permission: ports below 1024 need ") {
			t.Errorf("%v is %s: %s", f.Key(), f.State, f.Reason)
		}
	}
	if got := ask("tcp", "127.0.0.1:8080"); got != "a 127.0.0.1:8080" {
		t.Errorf("8080: %q", got)
	}
}

// TestHostWithoutIPv6: IPv4 of a dual-stack listener works, quietly (A8).
func TestHostWithoutIPv6(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Skipf("IPv6 cannot be turned off here: %v", err)
	}
	r := realRig(t, local)
	r.add("a", "tcp [::]:8000 dual", "udp [::]:8000 dual")
	for _, protocol := range []string{"tcp", "udp"} {
		if got := ask(protocol, "127.0.0.1:8000"); got != "a 127.0.0.1:8000" {
			t.Errorf("%s: %q", protocol, got)
		}
	}
	for _, f := range r.ForwardsOf(8000) {
		if f.State != Open || f.Host[1].State != Ignored || f.Host[1].Reason != "this host has no IPv6" {
			t.Errorf("%+v", f)
		}
	}
	wait.Until(t, 5*time.Second, "the forwards are reported", func() bool { return len(r.log.AllEntries()) == 2 })
	if lines := r.lines(logrus.WarnLevel); len(lines) > 0 {
		t.Errorf("log: %v", lines)
	}
}
