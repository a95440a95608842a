package isolation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// watching is a Watcher that runs.
type watching struct{ *Watcher }

// run runs a Watcher until the test ends.
func run(t *testing.T, cfg Config) watching {
	t.Helper()
	w := watching{New(cfg)}
	t.Cleanup(w.start(t))
	return w
}

// start runs w until what it returns is called.
func (w watching) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func (w watching) now() message.Isolation {
	report, _ := w.Report()
	return report
}

// within waits for a report, by the channel that tells of changes alone.
func (w watching) within(t *testing.T, limit time.Duration, what string, holds func(message.Isolation) bool) {
	t.Helper()
	began := time.Now()
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		report, changed := w.Report()
		if holds(report) {
			t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("waited %s for %s: %+v", limit, what, report)
		}
	}
}

// finding looks for evidence. Other tests on this machine may be evidence, too,
// so each looks for its own.
func finding(kind, detail string) func(message.Isolation) bool {
	return func(i message.Isolation) bool {
		return slices.Contains(i.Findings, message.IsolationFinding{Kind: kind, Detail: detail})
	}
}

func not(holds func(message.Isolation) bool) func(message.Isolation) bool {
	return func(i message.Isolation) bool { return !holds(i) }
}

// ownNames are for processes that no agent but this test's takes for sysbox.
func ownNames() names {
	return names{manager: fmt.Sprintf("sbxm%d", os.Getpid()), files: fmt.Sprintf("sbxf%d", os.Getpid())}
}

// copyOf copies a program that sleeps.
func copyOf(t *testing.T, name string) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip(err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// sleeping starts a program, which is copied from busybox, as the given argv.
func sleeping(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := &exec.Cmd{Path: path, Args: args, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestSysboxProcess holds G2: a process of sysbox is noticed when it starts and
// when it ends, by the name of the process or that of its file.
func TestSysboxProcess(t *testing.T) {
	own := ownNames()
	w := run(t, Config{sysbox: own})
	seen := func(cmd *exec.Cmd, name string) func(message.Isolation) bool {
		return finding(message.IsolationSysboxProcess, fmt.Sprintf("%s, process %d", name, cmd.Process.Pid))
	}
	for _, name := range []string{own.manager, own.files} {
		cmd := sleeping(t, copyOf(t, name), "sleep", "1000")
		w.within(t, noticed, name, seen(cmd, name))
		late := watching{New(Config{sysbox: own})}
		if !seen(cmd, name)(late.now()) {
			t.Errorf("%s runs, but a new watcher has not seen it", name)
		}
		late.processes.close()
		end(cmd)
		w.within(t, noticed, "the end of "+name, not(seen(cmd, name)))
	}

	// By the process's name: the file is a shell's.
	shell, stdin := reading(t, exec.Command(writeScript(t, own.manager)))
	w.within(t, noticed, "a script", seen(shell, own.manager))
	stdin.Close()
	w.within(t, noticed, "the end of the script", not(seen(shell, own.manager)))
}

// TestSysboxNames holds G2: what counts are the names that sysbox's processes
// have.
func TestSysboxNames(t *testing.T) {
	w := New(Config{})
	defer w.processes.close()
	for pid, name := range []string{"sysbox-mgr", "sysbox-fs"} {
		if got := w.processes.wanted(name); got != name {
			t.Errorf("%s is looked for as %q", name, got)
		}
		w.processes.known = map[int]process{pid: {name: name}}
		want := message.IsolationFinding{Kind: message.IsolationSysboxProcess, Detail: fmt.Sprintf("%s, process %d", name, pid)}
		if got := w.processes.evidence().findings; !slices.Equal(got, []message.IsolationFinding{want}) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	for _, name := range []string{"", "sysbox", "sysbox-runc", "sysbox-mgr2", ownNames().manager} {
		if got := w.processes.wanted(name); got != "" {
			t.Errorf("%q is looked for as %q", name, got)
		}
	}
}

// writeScript writes a script, which runs until its input ends.
func writeScript(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nread nothing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// reading starts a program that reads. It is a zombie from its end to the test's.
func reading(t *testing.T, cmd *exec.Cmd) (*exec.Cmd, io.WriteCloser) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd, stdin
}

const inNamespace = "VMBRIDGE_TEST_USER_NAMESPACE"

// TestUserNamespace holds G2: an agent in a user namespace says so at once.
func TestUserNamespace(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		w := watching{New(Config{})}
		defer w.processes.close()
		for _, f := range w.now().Findings {
			fmt.Println(f.Kind, f.Detail)
		}
		return
	}
	own, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	const kind = message.IsolationUserNamespace
	found := slices.ContainsFunc(ownNamespace().findings, func(f message.IsolationFinding) bool { return f.Kind == kind })
	if identity := strings.Join(strings.Fields(string(own)), " ") == "0 0 4294967295"; found == identity {
		t.Errorf("evidence: %t, with uid_map %q", found, own)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	if err := exec.Command(unshare, "-U", "-r", "true").Run(); err != nil {
		t.Skip("no user namespaces here:", err)
	}
	child := exec.Command(unshare, "-U", "-r", os.Args[0], "-test.run=^TestUserNamespace$", "-test.v")
	child.Env = append(os.Environ(), inNamespace+"=1")
	out, err := child.CombinedOutput()
	want := fmt.Sprintf(`%s /proc/self/uid_map of the agent is "0 %d 1"`, kind, os.Getuid())
	if err != nil || !bytes.Contains(out, []byte(want)) {
		t.Errorf("want %s, got %v:\n%s", want, err, out)
	}
}

// TestCut holds that what matters most is in a report that is cut.
func TestCut(t *testing.T) {
	w := New(Config{})
	defer w.processes.close()
	var many, one evidence
	for i := range 3 * message.MaxIsolationEntries {
		many.found(message.IsolationContainerRuntime, "container %d", i)
		many.missed("engine", fmt.Errorf("%d", i))
	}
	one.found(message.IsolationDefaultRuntime, "%s", strings.Repeat("\x1b", 2*maxText))
	w.tell(&w.surplus, many)
	_, changed := w.Report()
	w.tell(&w.own, one)
	wait.For(t, patience, "the change", changed)
	report, changed := w.Report()
	if len(report.Findings) != message.MaxIsolationEntries || len(report.Incomplete) != message.MaxIsolationEntries {
		t.Errorf("%d findings and %d that are missing", len(report.Findings), len(report.Incomplete))
	}
	i := slices.IndexFunc(report.Findings, func(f message.IsolationFinding) bool { return f.Kind == message.IsolationDefaultRuntime })
	if i < 0 || len(report.Findings[i].Detail) > maxText || strings.Contains(report.Findings[i].Detail, "\x1b") {
		t.Errorf("the default runtime is at %d of %+v", i, report.Findings)
	}
	w.tell(&w.own, one)
	select {
	case <-changed:
		t.Error("a change is told where nothing changed")
	default:
	}
}
