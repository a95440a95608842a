package isolate

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const envName = "VMBRIDGE_TEST_ISOLATED"

// nobody is the user of InNetnsAsUser.
const nobody = 65534

// InNetns runs the calling test again, in a new network namespace with lo up. It
// is true in the child, which does the work; the parent has the result when it
// is false, and returns. It skips without root.
func InNetns(t *testing.T) bool {
	t.Helper()
	return again(t, syscall.CLONE_NEWNET)
}

// InMounts is InNetns with a mount namespace too: what the test mounts is there
// for nobody else.
func InMounts(t *testing.T) bool {
	t.Helper()
	if !again(t, syscall.CLONE_NEWNET|syscall.CLONE_NEWNS) {
		return false
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatalf("keep mounts to the test: %v", err)
	}
	return true
}

// again runs the calling test again, in new namespaces.
func again(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	if os.Getenv(envName) == t.Name() {
		if err := loopbackUp(); err != nil {
			t.Fatalf("set lo up: %v", err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	// The child dies with the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), envName+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in namespaces of its own: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// InNetnsAsUser is InNetns as an ordinary user. prepare, which may be nil, runs
// in the child before the privileges go.
func InNetnsAsUser(t *testing.T, prepare func()) bool {
	if !InNetns(t) {
		return false
	}
	if prepare != nil {
		prepare()
	}
	for _, step := range []error{syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)} {
		if step != nil {
			t.Fatalf("drop privileges: %v", step)
		}
	}
	return true
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// InNetnsWithTUN is InNetns for a test that makes TUN devices. It skips where
// there are none.
func InNetnsWithTUN(t *testing.T) bool {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no TUN devices here:", err)
	}
	return InNetns(t)
}
