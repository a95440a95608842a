package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// systemdScript becomes a systemd that boots next to nothing, in namespaces of its
// own: its root is this machine's, and what it writes is in memory. $1 is an empty
// directory.
const systemdScript = `set -e
mount --make-rprivate /
mount -t tmpfs none $1
mkdir $1/up $1/work $1/root
mount -t overlay overlay -o lowerdir=/,upperdir=$1/up,workdir=$1/work $1/root
cd $1/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind /dev dev
mount -t tmpfs none run
mount -t tmpfs none tmp
rm -rf etc/systemd/system etc/vmbridge usr/local/bin/vmbridge-guest
mkdir -p etc/systemd/system/vmbridge-guest.service.d oldroot
rm -f etc/machine-id
echo 0123456789abcdef0123456789abcdef > etc/machine-id
printf '[Unit]\nRequires=sysinit.target dbus.service\n' > etc/systemd/system/test.target
printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/vmbridge-guest serve --listen unix:///run/agent.sock\n' \
	> etc/systemd/system/vmbridge-guest.service.d/listen.conf
for unit in systemd-udevd systemd-udev-trigger systemd-modules-load systemd-sysctl systemd-remount-fs \
	systemd-tmpfiles-setup-dev systemd-binfmt systemd-timesyncd systemd-networkd; do
	ln -s /dev/null etc/systemd/system/$unit.service
done
ip link set lo up
pivot_root . oldroot
umount -l oldroot
export container=lxc
exec /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=no
`

// systemdGuest is a guest whose service manager is a real systemd.
type systemdGuest struct {
	t   *testing.T
	pid int // of its init, here
}

// startSystemd skips the test where there is no systemd, or it may not run.
func startSystemd(t *testing.T) *systemdGuest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for systemd's namespaces")
	}
	for _, program := range []string{"/lib/systemd/systemd", "systemctl", "journalctl", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child",
		"sh", "-c", systemdScript, "sh", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: newCgroup(t), Setpgid: true}
	out := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the kernel kills what it has started with it
		<-ended
	})
	g := &systemdGuest{t: t}
	wait.Until(t, 30*time.Second, "systemd is up", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("systemd cannot run here: %v: %s", err, out)
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if n, _ := fmt.Sscan(string(children), &g.pid); err != nil || n != 1 {
			return false
		}
		state, _ := g.command("systemctl is-system-running").Output()
		return strings.HasPrefix(string(state), "running") || strings.HasPrefix(string(state), "degraded")
	})
	return g
}

// newCgroup makes a cgroup for systemd to rule.
func newCgroup(t *testing.T) (fd int) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
			continue
		}
		path, err := os.MkdirTemp(root, "vmbridge-test-")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { removeCgroup(t, path) })
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		return int(dir.Fd())
	}
	t.Skip("no cgroup2 is mounted here")
	return 0
}

// removeCgroup removes it with those that systemd has made in it, whose processes
// are about to end.
func removeCgroup(t *testing.T, root string) {
	wait.Until(t, 10*time.Second, "the guest's processes are gone", func() bool {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = os.Remove(dirs[i])
		}
		_, err := os.Stat(root)
		return os.IsNotExist(err)
	})
}

// shell is a command that leads to a shell in the guest.
func (g *systemdGuest) shell() string { return fmt.Sprintf("nsenter -t %d -a sh", g.pid) }

func (g *systemdGuest) command(script string) *exec.Cmd {
	// Its end is the test's, when a call hangs.
	ctx, cancel := context.WithTimeout(g.t.Context(), 30*time.Second)
	g.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "sh", "-c", g.shell()+` -c "$1"`, "sh", script)
}

// run runs a script in the guest, which must succeed, and gives what it prints.
func (g *systemdGuest) run(script string) string {
	g.t.Helper()
	out, err := g.command(script).CombinedOutput()
	if err != nil {
		g.t.Errorf("in the guest: %s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// agentSocket is where the agent listens, as seen from here.
func (g *systemdGuest) agentSocket() string {
	return fmt.Sprintf("/proc/%d/root/run/agent.sock", g.pid)
}
