package acceptance

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// image is what the engine's containers run: netcat-openbsd, busybox, the echo
// server, and what the test adds.
const image = "tools"

// engineConfig says what differs from the usual engine, whose containers have
// --net=host, and so the guest's network.
type engineConfig struct {
	bridge   string   // network of a bridge for containers, which is masqueraded
	programs []string // in the image, too
	inGuest  bool     // it is in the agent's mount namespace, where no other test's agent finds its socket
	flags    []string // of dockerd, after those that every engine has
}

// engine is a Docker engine of a bed's guest, with its own containerd.
type engine struct {
	b      *bed
	config engineConfig
	docker string // the client
	dir    string
	parent string // cgroup of all containers
	daemon *process
}

// startEngine starts an engine and makes the image. What it leaves behind,
// however it ends, goes away with the test.
func (b *bed) startEngine(config engineConfig) *engine {
	b.t.Helper()
	e := &engine{b: b, config: config, dir: filepath.Join(b.dir, "engine"), parent: filepath.Base(b.dir)}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "runc", "nc.openbsd", "busybox"} {
		b.need(program)
	}
	e.docker = b.need("docker")
	must(b.t, os.Mkdir(e.dir, 0o700))
	if config.inGuest {
		_, err := runFor(b.guest, patience, e.enter(exec.Command("mount", "-t", "tmpfs", "none", e.dir)))
		must(b.t, err)
	}
	b.t.Cleanup(e.cleanUp)
	e.start()
	e.run(e.image(), "import", "-", image)
	return e
}

// in is the engine for a subtest.
func (e *engine) in(t *testing.T) *engine {
	sub := *e
	sub.b = e.b.in(t)
	return &sub
}

// start starts dockerd, again after a crash, and waits until it answers.
func (e *engine) start() {
	e.b.t.Helper()
	unavailable := e.b.t.Skipf
	if e.daemon != nil {
		unavailable = e.b.t.Fatalf // it ran before
	}
	network := []string{"--bridge=none", "--iptables=false", "--ip6tables=false"}
	if e.config.bridge != "" {
		network = []string{"--bip", e.config.bridge}
	}
	flags := slices.Concat(network, []string{"--log-level", "error",
		"--host", e.host(), "--data-root", filepath.Join(e.dir, "data"), "--exec-root", e.exec(),
		"--pidfile", filepath.Join(e.dir, "pid"), "--cgroup-parent", "/" + e.parent}, e.config.flags)
	e.daemon = e.b.spawn(e.b.guest, "dockerd", e.enter(exec.Command(e.b.need("dockerd"), flags...)))
	err := wait.Try(patience, func() error {
		if !e.daemon.running() {
			return fmt.Errorf("it has ended: %v", e.daemon.err)
		}
		_, err := runFor(e.b.guest, patience, e.command("version"))
		return err
	})
	if err != nil {
		unavailable("dockerd does not run here: %v\n%s", err, e.daemon.output())
	}
}

func (e *engine) exec() string { return filepath.Join(e.dir, "exec") }

func (e *engine) host() string { return "unix://" + filepath.Join(e.dir, "sock") }

// enter has a command run where the engine is.
func (e *engine) enter(cmd *exec.Cmd) *exec.Cmd {
	if !e.config.inGuest {
		return cmd
	}
	args := append([]string{"nsenter", "--target", fmt.Sprint(e.b.agent.pid()), "--mount"}, cmd.Args...)
	entered := exec.Command(args[0], args[1:]...)
	entered.Env = cmd.Env
	return entered
}

// command is the docker of this engine.
func (e *engine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(e.docker, append([]string{"--host", e.host()}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+e.dir)
	return e.enter(cmd)
}

// run runs a docker command, which must succeed, and gives its output.
func (e *engine) run(stdin io.Reader, args ...string) string {
	e.b.t.Helper()
	cmd := e.command(args...)
	cmd.Stdin = stdin
	out, err := runFor(e.b.guest, patience, cmd)
	must(e.b.t, err)
	return strings.TrimSpace(out)
}

// container starts a container in the background with the guest's network.
func (e *engine) container(name string, args ...string) {
	e.b.t.Helper()
	e.run(nil, append([]string{"run", "--detach", "--net=host", "--name", name}, args...)...)
}

// crash kills the engine with everything that belongs to it, containers and all,
// as the end of a machine would, which also empties what lies in /run.
func (e *engine) crash() {
	e.b.t.Helper()
	e.daemon.kill()
	wait.Eventually(e.b.t, patience, "nothing of the engine runs", func() error {
		e.killAll()
		return errors.Join(e.unmount(), os.RemoveAll(e.exec()))
	})
}

// killAll kills the processes of this engine: containerd and shims by their
// command lines, containers by their cgroups.
func (e *engine) killAll() {
	for _, pid := range processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		groups, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || err2 != nil {
			continue // it has just ended
		}
		if bytes.Contains(line, []byte(e.exec()+"/")) || bytes.Contains(groups, []byte("/"+e.parent+"/")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (e *engine) cleanUp() {
	t := e.b.t
	e.daemon.kill()
	wait.Eventually(t, patience, "everything of the engine is gone", func() error {
		e.killAll()
		return errors.Join(e.unmount(), e.removeCgroups())
	})
}

// unmount detaches all that is mounted below the engine's directory, the deepest
// first.
func (e *engine) unmount() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var below []string
	for line := range strings.Lines(string(table)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, e.dir+"/") {
			below = append(below, at)
		}
	}
	slices.SortFunc(below, func(a, b string) int { return len(b) - len(a) })
	for _, at := range below {
		err = errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}
	return err
}

// removeCgroups removes the containers' cgroups, which their ends leave behind
// when the engine is dead, in every hierarchy.
func (e *engine) removeCgroups() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		head, tail, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(tail, "cgroup") {
			continue
		}
		top := filepath.Join(strings.Fields(head)[4], e.parent)
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs) // children first
		for _, dir := range dirs {
			if rmErr := os.Remove(dir); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
	}
	return err
}

func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// libraries matches the files that ldd names.
var libraries = regexp.MustCompile(`(/\S+) \(0x`)

// image is an archive of the image's files, made of this machine's.
func (e *engine) image() io.Reader {
	t := e.b.t
	t.Helper()
	nc := e.b.need("nc.openbsd")
	files := map[string]string{
		"bin/nc":      nc,
		"bin/busybox": e.b.need("busybox"),
		"bin/server":  built.server(t),
	}
	dynamic := []string{nc}
	for _, name := range e.config.programs {
		path := e.b.need(name)
		files["bin/"+name] = path
		dynamic = append(dynamic, path)
	}
	for _, path := range dynamic {
		out, err := exec.Command("ldd", path).CombinedOutput()
		if err != nil {
			t.Fatalf("ldd %s: %v: %s", path, err, out)
		}
		for _, m := range libraries.FindAllStringSubmatch(string(out), -1) {
			files[strings.TrimPrefix(m[1], "/")] = m[1]
		}
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, path := range files {
		content, err := os.ReadFile(path)
		must(t, err)
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err = w.Write(content)
		must(t, err)
	}
	must(t, w.Close())
	return &archive
}

// serverCommand is an echo server on a port, TCP and UDP, both families.
func serverCommand(t *testing.T, port string) *exec.Cmd {
	t.Helper()
	return exec.Command(built.server(t), "tcp", "::", port, port, "udp", "::", port, port)
}
