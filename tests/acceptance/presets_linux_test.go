package acceptance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestPresets: with each product, one link leads from nothing to a forward, by the
// command line that the product documents, and the next start finds the agent there.
func TestPresets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, program, check, line string }{
		{"lima://", "limactl", "", "<shell><--workdir></><default><sudo><sh>"},
		{"lima://dev", "limactl", "", "<shell><--workdir></><dev><sudo><sh>"},
		{"colima://", "colima", "", "<ssh><--><sudo><sh>"},
		{"colima://dev", "colima", "", "<ssh><--profile><dev><--><sudo><sh>"},
		{"podman-machine://", "podman", "", "<machine><ssh><sudo><sh>"},
		{"podman-machine://dev", "podman", "<machine><inspect><dev>", "<machine><ssh><dev><sudo><sh>"},
		{"wsl://", "wsl.exe", "", "<-u><root><--><sh>"},
		{"wsl://Debian", "wsl.exe", "", "<-d><Debian><-u><root><--><sh>"},
	} {
		t.Run(test.url, func(t *testing.T) {
			t.Parallel()
			v := newProductVM(t, test.url, "")
			lines := map[string]string{test.line: entered(v)}
			want := []string{test.line}
			if test.check != "" {
				lines[test.check] = "echo '[{}]'"
				want = []string{test.check, test.line}
			}
			v.product(test.program, lines)
			v.startDaemon()
			v.awaitLink()
			m := v.meet(socket.Spec{Network: "tcp", Address: "127.0.0.1:8000"})
			m.pair()
			if got := v.calls(test.program); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("called %q, want %q", got, want)
			}
			if log := v.daemon.output(); !strings.Contains(log, "copying the agent into the guest") {
				t.Error("the daemon does not say that it copies")
			}
			const files = "find /var/lib/vmbridge /usr/local -printf '%m %u %i %p\n'"
			before := v.runs(files)
			if !regexp.MustCompile(`^700 root \d+ /var/lib/vmbridge\n700 root \d+ /var/lib/vmbridge/vmbridge-guest-[0-9a-f]{16}\n755 root \d+ /usr/local$`).MatchString(before) {
				t.Errorf("in the VM there is\n%s", before)
			}
			v.daemon.terminate()
			v.awaitNoAgent()
			v.startDaemon()
			v.awaitLink()
			if after := v.runs(files); after != before || strings.Contains(v.daemon.output(), "copying") {
				t.Errorf("copied again:\n%s\n%s", before, after)
			}
		})
	}
}

func (v *productVM) awaitNoAgent() {
	v.t.Helper()
	wait.Eventually(v.t, patience, "the agent has ended", func() error {
		if pids := v.agents(); len(pids) > 0 {
			return fmt.Errorf("there are %v", pids)
		}
		return nil
	})
}

// TestPresetDaemonKilled: a daemon that is killed leaves no agent, and the next is
// there within the usual time (G3).
func TestPresetDaemonKilled(t *testing.T) {
	t.Parallel()
	v := newLima(t, "")
	v.startDaemon()
	v.awaitLink()
	if n := len(v.agents()); n != 1 {
		t.Errorf("there are %d agents", n)
	}
	v.daemon.kill()
	v.awaitNoAgent()
	v.startDaemon()
	v.awaitLink()
	m := v.meet(socket.Spec{Network: "tcp", Address: "127.0.0.1:8000"})
	m.pair()
	// And an agent that is killed comes back.
	for _, pid := range v.agents() {
		v.runs(fmt.Sprintf("kill -9 %d", pid))
	}
	wait.Eventually(t, patience, "the agent is back", func() error {
		if s, err := v.status(); err != nil || s.Links[0].State != "up" || len(v.agents()) != 1 {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	v.view.port("tcp 127.0.0.1:8000", "open")
}

// TestPresetSlow: a product that takes longer to lead into its VM than any handshake
// may take is waited for, and the status says so meanwhile.
func TestPresetSlow(t *testing.T) {
	t.Parallel()
	v := newProductVM(t, "lima://dev", "")
	v.product("limactl", map[string]string{limaLine: "sleep 8; " + entered(v)})
	v.startDaemon()
	v.awaitReason("no answer yet, after 5s; waiting for up to 10m0s")
	v.awaitLink()
	if strings.Contains(v.daemon.output(), "link down") {
		t.Error("the link was given up")
	}
}

// newLima is a VM of Lima's.
func newLima(t *testing.T, prepare string) *productVM {
	t.Helper()
	v := newProductVM(t, "lima://dev", prepare)
	v.product("limactl", map[string]string{limaLine: entered(v)})
	return v
}

const limaLine = "<shell><--workdir></><dev><sudo><sh>"

// TestPresetTrouble: what keeps a VM from being entered, and an agent from running
// there, is in the status, in the product's words.
func TestPresetTrouble(t *testing.T) {
	t.Parallel()
	const (
		notThere = `echo 'time="2026-11-30T12:00:00Z" level=fatal msg="instance \"dev\" does not exist, run \` + "`limactl create dev\\`" + ` to create a new instance"' >&2; exit 1`
		noPodman = `echo "Error: dev: VM does not exist" >&2; exit 125`
		stopped  = `echo 'level=fatal msg="colima [profile=dev] is not running"' >&2; exit 1`
		// On standard output, and in UTF-16.
		noDistro = `printf 'There is no distribution with the supplied name.\r\nError code: Wsl/Service/WSL_E_DISTRO_NOT_FOUND\r\n' | sed 's/./&\x00/g'; exit 255`
	)
	for name, test := range map[string]struct {
		url, program, line, prepare string
		code                        func(v *productVM) string
		says                        []string
	}{
		"no such instance": {"lima://dev", "limactl", limaLine, "", is(notThere), []string{"exit status 1", "does not exist", "limactl list tells"}},
		"stopped":          {"colima://dev", "colima", "<ssh><--profile><dev><--><sudo><sh>", "", is(stopped), []string{"is not running", "colima list tells"}},
		"no such machine":  {"podman-machine://dev", "podman", "<machine><inspect><dev>", "", is(noPodman), []string{"podman machine inspect dev", "125", "VM does not exist"}},
		"no distribution":  {"wsl://dev", "wsl.exe", "<-d><dev><-u><root><--><sh>", "", is(noDistro), []string{"255", "WSL_E_DISTRO_NOT_FOUND", "wsl.exe -l -v tells"}},
		"no product":       {"colima://", "other", "", "", is(""), []string{"127 (not found)", "colima"}},
		"no login":         {"lima://dev", "limactl", limaLine, "", is("echo 'kex_exchange_identification: Connection closed by remote host' >&2; exit 255"), []string{"255 (as ssh does", "kex_exchange"}},
		"hangs up":         {"lima://dev", "limactl", limaLine, "", is("echo Welcome"), []string{"ended too early", "Welcome", "limactl list tells"}},
		"a terminal":       {"lima://dev", "limactl", limaLine, "", is("exec script -qec sh /dev/null"), []string{"terminal"}},
		"no root": {"lima://dev", "limactl", limaLine, "", func(v *productVM) string {
			return "exec " + v.enter() + " setpriv --reuid 65534 --clear-groups sh"
		}, []string{"not root's but user 65534's"}},
		"no space": {"lima://dev", "limactl", limaLine, "mount -t tmpfs -o size=1m full /var/lib", entered, []string{"send the agent", "No space left on device"}},
		"read-only": {"lima://dev", "limactl", limaLine, "mount -o remount,ro /var/lib; mount -o remount,ro /usr/local", entered,
			[]string{"/var/lib/vmbridge or /usr/local/lib/vmbridge", "Read-only file system"}},
		"somebody else's": {"lima://dev", "limactl", limaLine,
			"mkdir -m 777 /var/lib/vmbridge; chown 65534 /var/lib/vmbridge; mount -o remount,ro /usr/local", entered, []string{"make a directory for the agent"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newProductVM(t, test.url, test.prepare)
			v.product(test.program, map[string]string{test.line: test.code(v)})
			v.startDaemon()
			v.awaitReason(test.says...)
			v.daemon.terminate() // else it tries again
			if pids := v.agents(); len(pids) > 0 {
				t.Errorf("an agent runs: %v", pids)
			}
			if left := v.runs("find /var/lib /usr/local -type f"); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
}

func is(code string) func(*productVM) string { return func(*productVM) string { return code } }

func entered(v *productVM) string { return "exec " + v.enter() + ` sh -c '` + sudo + `sudo sh'` }

// TestPresetPlaces: what is in the agent's places is used when it is whole, replaced
// when it is another version, and passed over where no program may be.
func TestPresetPlaces(t *testing.T) {
	t.Parallel()
	const one = `^/var/lib/vmbridge/vmbridge-guest-[0-9a-f]{16}$`
	for name, test := range map[string]struct{ prepare, then, want string }{
		"another version": {"mkdir -m 700 /var/lib/vmbridge; echo old > /var/lib/vmbridge/vmbridge-guest-0123456789abcdef", "", one},
		"open to others":  {"mkdir -m 777 /var/lib/vmbridge", "", one},
		"nothing runs in /var": {"mount -o remount,noexec /var/lib", "",
			`^/usr/local/lib/vmbridge/vmbridge-guest-[0-9a-f]{16}$`},
		"read-only /usr": {"mount -o remount,ro /usr/local", "", one},
		"damaged":        {"", "for f in /var/lib/vmbridge/vmbridge-guest-*; do cp $f /tmp/x; printf x | dd of=$f seek=9999 conv=notrunc; done", one},
		"cut off":        {"", "for f in /var/lib/vmbridge/vmbridge-guest-*; do truncate -s 100 $f; done", one},
		"not executable": {"", "chmod 600 /var/lib/vmbridge/*", one},
		"removed":        {"", "rm -r /var/lib/vmbridge", one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newLima(t, "mount -t tmpfs tmp /tmp; "+test.prepare)
			starts := 1
			if test.then != "" {
				starts = 2
			}
			for start := range starts {
				v.startDaemon()
				v.awaitLink()
				if !strings.Contains(v.daemon.output(), "copying the agent into the guest") {
					t.Errorf("start %d copies nothing", start)
				}
				if got := v.runs("find /var/lib /usr/local -type f"); !regexp.MustCompile(test.want).MatchString(got) {
					t.Errorf("there is\n%s", got)
				}
				v.daemon.terminate()
				v.awaitNoAgent()
				if start == 0 && test.then != "" {
					v.runs(test.then)
				}
			}
		})
	}
}

// TestPresetTwoDaemons: two daemons that come to a VM at once, and find no agent there,
// both get theirs, and one that goes leaves the other's alone.
func TestPresetTwoDaemons(t *testing.T) {
	t.Parallel()
	v := newLima(t, "")
	second := v.another()
	v.startDaemon()
	second.startDaemon()
	v.awaitLink()
	second.awaitLink()
	if n := len(v.agents()); n != 2 {
		t.Errorf("there are %d agents", n)
	}
	if got := v.runs("find /var/lib -type f | wc -l"); got != "1" {
		t.Errorf("there are %s files", got)
	}
	l := listen(t, v.maker, socket.Spec{Network: "tcp", Address: "127.0.0.1:8000"})
	v.view.port("tcp "+l.Addr().String(), "open")
	second.view.port("tcp "+l.Addr().String(), "open")
	// The guest's localhost reaches one of the hosts; the other says so, and takes over.
	first, other := v, second
	wait.Eventually(t, patience, "host reach has its host", func() error {
		a, errA := v.status()
		b, errB := second.status()
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		reachA, reachB := a.Links[0].HostReach, b.Links[0].HostReach
		if reachB.State == control.On {
			reachA, reachB, first, other = reachB, reachA, second, v
		}
		if reachA.State != control.On || !strings.Contains(reachB.Reason, "in use by process") {
			return fmt.Errorf("%+v, %+v", reachA, reachB)
		}
		return nil
	})
	first.daemon.kill()
	other.connect(l.Addr().String())
	wait.Eventually(t, patience, "one agent has ended", func() error {
		if pids := v.agents(); len(pids) != 1 {
			return fmt.Errorf("there are %v", pids)
		}
		return nil
	})
	other.connect(l.Addr().String())
	other.awaitHostReachOn()
}

// awaitHostReachOn waits also where it was not to be had.
func (v *productVM) awaitHostReachOn() {
	v.t.Helper()
	wait.Eventually(v.t, patience, "host reach is on", func() error {
		s, err := v.status()
		if err == nil && s.Links[0].HostReach.State != control.On {
			err = fmt.Errorf("%+v", s.Links[0].HostReach)
		}
		return err
	})
}

// another is another host of the same VM.
func (v *productVM) another() *productVM {
	v.t.Helper()
	b := *v.bed
	b.host, b.home = newNamespace(v.t), filepath.Join(b.dir, "home2")
	must(v.t, os.Mkdir(b.home, 0o700))
	return &productVM{bed: &b, pid: v.pid, path: v.path}
}
