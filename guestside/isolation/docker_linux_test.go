package isolation

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// patience is for what has no limit of its own, and an engine may do slowly.
const patience = 60 * time.Second

// noticed is how soon evidence is to be in the report.
const noticed = 1500 * time.Millisecond

// dockerd is an engine of its own, whose runtime sysbox-runc is runc by another
// name.
type dockerd struct {
	t        *testing.T
	dir      string
	program  string
	cmd      *exec.Cmd
	log      bytes.Buffer
	finished chan struct{}
}

// newDockerd prepares an engine in the test's own mount namespace, or skips.
func newDockerd(t *testing.T) *dockerd {
	t.Helper()
	d := &dockerd{t: t, dir: t.TempDir()}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "/usr/bin/runc", "docker", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("the engine is not here:", err)
		}
	}
	var err error
	if d.program, err = exec.LookPath("dockerd"); err != nil {
		t.Skip("the engine is not here:", err)
	}
	// Its own process can be seen by every agent on this machine, but where it
	// listens leads nowhere in their mount namespaces.
	if err := unix.Mount("vmbridge-test", d.dir, "tmpfs", 0, ""); err != nil {
		t.Skip("no tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		d.stop()
		wait.Until(t, patience, "nothing of the engine is left", func() bool { return d.sweep() == nil })
	})
	return d
}

func (d *dockerd) path(name string) string { return filepath.Join(d.dir, name) }

// configure writes the engine's configuration.
func (d *dockerd) configure(defaultRuntime string) {
	d.t.Helper()
	text, err := json.Marshal(map[string]any{
		"default-runtime": defaultRuntime,
		"runtimes":        map[string]any{"sysbox-runc": map[string]any{"path": "/usr/bin/runc"}},
	})
	if err == nil {
		err = os.WriteFile(d.path("daemon.json"), text, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// start starts the engine and waits until it answers; it skips where it cannot.
func (d *dockerd) start() {
	d.t.Helper()
	d.cmd = exec.Command(d.program, "--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=error",
		"-H", "unix://"+d.path("sock"), "--data-root", d.path("data"), "--exec-root", d.path("exec"),
		"--pidfile", d.path("pid"), "--config-file", d.path("daemon.json"),
		"--cgroup-parent", d.parent())
	d.log.Reset()
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Skip("the engine does not start:", err)
	}
	d.finished = make(chan struct{})
	go func() {
		defer close(d.finished)
		_ = d.cmd.Wait() // it ends by a signal
	}()
	wait.Until(d.t, patience, "the engine", func() bool {
		select {
		case <-d.finished:
			d.t.Skipf("the engine does not run here: %s", &d.log)
		default:
		}
		return d.docker(nil, "version") == nil
	})
}

func (d *dockerd) parent() string {
	return fmt.Sprintf("/vmbridge-isolation-%d", os.Getpid())
}

// stop stops the engine and its containers in good order.
func (d *dockerd) stop() {
	if d.finished == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	wait.For(d.t, patience, "the end of the engine", d.finished)
	d.finished = nil
}

// docker runs a command of the client.
func (d *dockerd) docker(stdin io.Reader, args ...string) error {
	cmd := exec.Command("docker", append([]string{"--host", "unix://" + d.path("sock")}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+d.dir)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return nil
}

// must runs a command of the client that is to succeed.
func (d *dockerd) must(args ...string) {
	d.t.Helper()
	if err := d.docker(nil, args...); err != nil {
		d.t.Fatalf("%v\n%s", err, &d.log)
	}
}

// importImage makes an image of busybox alone.
func (d *dockerd) importImage() {
	d.t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		d.t.Skip(err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		d.t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = w.WriteHeader(&tar.Header{Name: "busybox", Mode: 0o755, Size: int64(len(content))})
	_, err2 := w.Write(content)
	if err := errors.Join(err, err2, w.Close(), d.docker(&archive, "import", "-", "tools")); err != nil {
		d.t.Fatal(err)
	}
}

// sweep removes what an engine leaves when it ends badly.
func (d *dockerd) sweep() error {
	pids, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range pids {
		var pid int
		line, readErr := os.ReadFile(name)
		if _, scanErr := fmt.Sscanf(name, "/proc/%d/", &pid); readErr == nil && scanErr == nil &&
			bytes.Contains(line, []byte(d.path("exec")+"/")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			err = errors.Join(err, fmt.Errorf("process %d runs", pid))
		}
	}
	table, readErr := os.ReadFile("/proc/self/mountinfo")
	err = errors.Join(err, readErr)
	for line := range strings.Lines(string(table)) {
		at := strings.Fields(line)[4]
		if strings.HasPrefix(at, d.dir+"/") {
			err = errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
		}
		if _, kind, _ := strings.Cut(line, " - "); strings.HasPrefix(kind, "cgroup") {
			err = errors.Join(err, removeTree(filepath.Join(at, d.parent())))
		}
	}
	return err
}

// removeTree removes a cgroup and those in it.
func removeTree(top string) error {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	var err error
	for _, dir := range slices.Backward(dirs) {
		if removeErr := os.Remove(dir); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// TestDocker holds G2 with a real engine: its default runtime and those of its
// containers are known, and noticed when they change.
func TestDocker(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	d := newDockerd(t)
	socket := d.path("sock")
	// Found by the engine's flags alone: nothing says where it listens.
	w := run(t, Config{})
	byDefault := finding(message.IsolationDefaultRuntime, "sysbox-runc, engine at "+socket)
	inContainer := finding(message.IsolationContainerRuntime, "container isolated, runtime sysbox-runc, engine at "+socket)

	d.configure("sysbox-runc")
	d.start()
	w.within(t, noticed, "a default runtime", byDefault)
	d.configure("runc")
	reload := func() {
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	reload()
	w.within(t, noticed, "another default runtime", not(byDefault))
	d.configure("sysbox-runc")
	reload()
	w.within(t, noticed, "the default runtime again", byDefault)
	d.configure("runc")
	reload()
	w.within(t, noticed, "another default runtime", not(byDefault))

	d.importImage()
	d.must("run", "--detach", "--net=host", "--name=plain", "tools", "/busybox", "sleep", "1000")
	d.must("run", "--detach", "--net=host", "--name=isolated", "--runtime=sysbox-runc", "tools", "/busybox", "sleep", "1000")
	w.within(t, noticed, "a container's runtime", inContainer)
	if report, _ := w.Report(); slices.ContainsFunc(report.Findings, func(f message.IsolationFinding) bool {
		return strings.Contains(f.Detail, "container plain")
	}) {
		t.Errorf("a container with runc is evidence: %+v", report)
	}

	// One that begins to look sees what runs, before it reports at all.
	late := watching{New(Config{})}
	stop := late.start(t)
	wait.For(t, patience, "the first answers", late.Ready())
	if !inContainer(late.now()) && !slices.Contains(late.now().Incomplete, "engine at "+socket+": it has not answered yet") {
		t.Errorf("ready, and neither evidence nor what is missing: %+v", late.now())
	}
	wait.Until(t, noticed, "a container that was there", func() bool { return inContainer(late.now()) })
	stop()

	d.must("kill", "isolated")
	w.within(t, noticed, "the container's end", not(inContainer))
	d.must("rm", "isolated")

	// What an engine said is void when it has ended, and asked again when it is
	// back.
	d.must("run", "--detach", "--net=host", "--name=isolated", "--runtime=sysbox-runc", "tools", "/busybox", "sleep", "1000")
	w.within(t, noticed, "a container's runtime", inContainer)
	d.stop()
	w.within(t, noticed, "the engine's end", not(inContainer))
	d.configure("sysbox-runc")
	d.start()
	w.within(t, noticed, "the engine that is back", byDefault)
}
