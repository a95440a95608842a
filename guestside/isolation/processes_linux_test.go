package isolation

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

func TestBetween(t *testing.T) {
	for _, tc := range []struct {
		before, pid, last int
		want              bool
	}{
		{10, 11, 12, true}, {10, 12, 12, true}, {10, 10, 12, false}, {10, 13, 12, false}, {10, 10, 10, false},
		{32000, 32001, 310, true}, {32000, 300, 310, true}, {32000, 310, 310, true}, {32000, 311, 310, false}, {32000, 32000, 310, false},
	} {
		if got := between(tc.before, tc.pid, tc.last); got != tc.want {
			t.Errorf("%+v: got %t", tc, got)
		}
	}
}

func TestParseStart(t *testing.T) {
	const rest = " 1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200"
	for text, want := range map[string]uint64{
		"42 (sysbox-mgr) S" + rest:    123456,
		"42 (a) Z (b c)) S" + rest:    123456,
		"42 (gone) Z" + rest:          0,
		"42 (gone) X" + rest:          0,
		"42 (short) S 1":              0,
		"42 (x) S" + rest[:40] + " x": 0,
		"":                            0,
	} {
		if got, ok := parseStart(text); got != want || ok != (want != 0) {
			t.Errorf("%q: got %d, %t", text, got, ok)
		}
	}
}

// TestLook holds G2: whatever became of the numbers since the last look, a new
// process is found, and one that is no longer new by the look at all.
func TestLook(t *testing.T) {
	own := ownNames()
	manager := copyOf(t, own.manager)
	// A listing of all processes must not be what finds it.
	never := time.Now().Add(time.Hour)
	for name, change := range map[string]func(*processes){
		"next":  func(*processes) {},
		"gap":   func(p *processes) { p.last -= maxGap + 1 },
		"wrap":  func(p *processes) { p.last += maxGap },
		"young": func(p *processes) { p.look(time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcesses(own)
			defer p.close()
			p.look(time.Now())
			p.scan = never
			p.look(time.Now())
			pid, become := 0, func() {}
			if name == "young" {
				shell, stdin := reading(t, exec.Command("/bin/sh", "-c", "read go; exec "+writeScript(t, own.manager)))
				pid = shell.Process.Pid
				become = func() { fmt.Fprintln(stdin, "go") }
			} else {
				pid = sleeping(t, manager, "sleep", "1000").Process.Pid
			}
			change(p)
			become()
			wait.Until(t, patience, "exec", func() bool {
				comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				return err == nil && string(comm) == own.manager+"\n"
			})
			if changed, _ := p.look(time.Now()); !changed || p.known[pid].name != own.manager {
				t.Errorf("process %d is not known: changed %t, %v", pid, changed, p.known)
			}
		})
	}
	t.Run("late", func(t *testing.T) {
		p := newProcesses(own)
		defer p.close()
		shell, stdin := reading(t, exec.Command("/bin/sh", "-c", "read go; exec "+writeScript(t, own.manager)))
		now := time.Now()
		for range 3 { // of which the last has it for old
			p.look(now)
			now = now.Add(time.Millisecond)
		}
		fmt.Fprintln(stdin, "go")
		wait.Until(t, patience, "exec", func() bool {
			found, _ := p.identify(shell.Process.Pid)
			return found.name == own.manager
		})
		p.look(now)
		early := p.known[shell.Process.Pid].name
		p.look(now.Add(scanAtLeastIn + time.Millisecond))
		if late := p.known[shell.Process.Pid].name; early != "" || late != own.manager {
			t.Errorf("known as %q, and %q when all are looked at", early, late)
		}
	})
}

// G2: anybody may call programs podman. However many there are, sysbox is seen.
func TestManyEnginesHideNothing(t *testing.T) {
	p := &processes{sysbox: sysboxNames(), known: map[int]process{}}
	for pid := 1; p.hasRoom(process{name: "podman"}); pid++ {
		p.known[pid] = process{name: "podman"}
	}
	if len(p.known) != maxKnown || !p.hasRoom(process{name: sysboxNames().manager}) {
		t.Errorf("%d engines are known, and there is no room for sysbox", len(p.known))
	}
}

// cpu is the time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const inPIDNamespace = "VMBRIDGE_TEST_PID_NAMESPACE"

// TestCost measures a Watcher at rest, and while 2,000 processes a second begin
// and end, in a pid namespace of its own, where nothing else does.
func TestCost(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	if os.Getenv(inPIDNamespace) == "" {
		unshare := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
		if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
			t.Skipf("no pid namespaces here: %v: %s", err, out)
		}
		cmd := exec.Command(unshare[0], append(unshare[1:], os.Args[0], "-test.run=^TestCost$", "-test.v")...)
		cmd.Env = append(os.Environ(), inPIDNamespace+"=1")
		out, err := cmd.CombinedOutput()
		if t.Logf("%s", out); err != nil {
			t.Error(err)
		}
		return
	}
	w := run(t, Config{})
	wait.For(t, patience, "two looks", time.After(3*lookEvery))
	measure := func(what string) float64 {
		count := newProcesses(sysboxNames())
		defer count.close()
		if err := count.readLast(); err != nil {
			t.Fatal(err)
		}
		first, before, began := count.last, cpu(t), time.Now()
		wait.For(t, patience, "five seconds", time.After(5*time.Second))
		used, took := cpu(t)-before, time.Since(began)
		if err := count.readLast(); err != nil {
			t.Fatal(err)
		}
		share := 100 * used.Seconds() / took.Seconds()
		t.Logf("%s: %.4f %% of a core, with %.0f new processes a second", what, share, float64(count.last-first)/took.Seconds())
		return share
	}
	// Loose: the machine may be busy, and the race detector may be on.
	if share := measure("at rest"); share > 1 {
		t.Errorf("%.2f %% of a core at rest", share)
	}
	forks := exec.Command("busybox", "sh", "-c", "while :; do i=0; while [ $i -lt 100 ]; do (:); i=$((i+1)); done; sleep 0.02; done")
	forks.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := forks.Start(); err != nil {
		t.Skip(err)
	}
	defer end(forks)
	measure("with forks")
	if len(w.now().Findings) > 0 {
		t.Errorf("nothing of sysbox runs here: %+v", w.now())
	}
}
