package acceptance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// vm is what a VM with a Docker engine is to the daemon: a network, processes and
// mounts of its own, and the engine's API. Its first process is no engine, so an engine
// may end, and begin, while the VM runs.
type vm struct {
	*engine
	config vmConfig
	init   *process
	pid    int // of the first process, as this machine sees it
}

// vmConfig says what differs from the usual VM.
type vmConfig struct {
	flags   []string // of dockerd
	prepare string   // a script that runs in the VM first, with the engine's directory as $0
	podman  bool     // the engine is Podman, which serves the same API
	wired   bool     // a network leads from the host into the VM
}

// newVM makes a bed with a VM and an engine in it. The daemon has yet to be started.
func newVM(t *testing.T, bed bedConfig, config vmConfig) *vm {
	t.Helper()
	bed.transport = "docker"
	b := newBed(t, bed)
	b.programs = built.carrying(t, !bed.noRace)
	if config.wired {
		joinNamespaces(t, b.host, hostWire, b.guest, guestWire)
	}
	needs := []string{"unshare", "nsenter", "bash", "runc", "nc.openbsd", "busybox"}
	if config.podman {
		needs = append(needs, "podman", "conmon")
	} else {
		needs = append(needs, "dockerd", "containerd", "containerd-shim-runc-v2")
	}
	for _, program := range needs {
		b.need(program)
	}
	v := &vm{config: config, engine: &engine{
		b: b, docker: b.need("docker"), dir: filepath.Join(b.dir, "engine"), parent: filepath.Base(b.dir),
	}}
	must(t, os.Mkdir(v.dir, 0o711))      // users of namespaces pass
	user := filepath.Join(b.dir, "user") // who has no configuration of docker
	must(t, os.Mkdir(user, 0o755))
	b.config.environ = append(b.config.environ, "HOME="+user, "DOCKER_CONFIG=", "DOCKER_CONTEXT=", "DOCKER_HOST="+v.host())
	t.Cleanup(func() {
		wait.Eventually(t, patience, "nothing of the VM is left", v.removeCgroups)
	})
	if config.podman {
		v.config.prepare += `
			mkdir -p /run/podman; ln -s "$0/sock" /run/podman/podman.sock` // where it usually is
	}
	v.boot()
	v.start()
	if config.podman {
		t.Cleanup(func() { // whose cgroups go with the containers only
			if ids := strings.Fields(v.run(nil, "ps", "--all", "--quiet")); len(ids) > 0 {
				v.run(nil, append([]string{"rm", "--force"}, ids...)...)
			}
		})
	}
	v.run(v.image(), "import", "-", image)
	return v
}

// boot starts the VM.
func (v *vm) boot() {
	v.b.t.Helper()
	const script = `mount -t tmpfs none /run; %s; echo booted; read end`
	// bash takes leave of the dead that it did not start, as a first process has to.
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-ec", fmt.Sprintf(script, "eval \"$1\""), v.dir, v.config.prepare)
	first := v.b.talk(v.b.guest, cmd)
	v.init = first.process
	wait.Eventually(v.b.t, patience, "the VM boots", func() error {
		if !v.init.running() {
			v.b.t.Skipf("no namespaces for a VM here: %s", v.init.output())
		}
		if !strings.Contains(first.Said.String(), "booted") {
			return errors.New(v.init.output())
		}
		return nil
	})
	v.pid = v.b.childOf(v.init)
}

// inside is a command in the VM.
func (v *vm) inside(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", fmt.Sprint(v.pid), "--mount", "--pid"}, args...)...)
}

// runInside runs a command in the VM, which must succeed.
func (v *vm) runInside(args ...string) string {
	v.b.t.Helper()
	out, err := runFor(v.b.guest, patience, v.inside(args...))
	must(v.b.t, err)
	return strings.TrimSpace(out)
}

// start starts the engine in the VM, and waits until it answers. Its usual socket is in
// the VM, and another one is what this machine has of it.
func (v *vm) start() {
	v.b.t.Helper()
	again := v.daemon != nil
	name, args := "dockerd", v.dockerd
	if v.config.podman {
		name, args = "podman", v.podman
	}
	v.daemon = v.b.spawn(v.b.guest, name, v.inside(args()...))
	err := wait.Try(patience, func() error {
		_, err := runFor(v.b.guest, patience, v.command("version"))
		if !v.daemon.running() {
			return nil
		}
		return err
	})
	if !v.daemon.running() {
		err = fmt.Errorf("it has ended: %v", v.daemon.err)
	}
	if err != nil {
		unavailable := v.b.t.Skipf
		if again {
			unavailable = v.b.t.Fatalf
		}
		unavailable("%s does not run here: %v\n%s", name, err, v.daemon.output())
	}
}

func (v *vm) podman() []string {
	return append([]string{"podman", "--root", filepath.Join(v.dir, "data"), "--runroot", "/run/containers",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"},
		append(v.config.flags, "system", "service", "--time", "0", v.host())...)
}

func (v *vm) dockerd() []string {
	runtime := filepath.Join(built.helpers(v.b.t), "runtime")
	return slices.Concat([]string{"dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level", "error",
		"--host", "unix:///run/docker.sock", "--host", v.host(), "--data-root", filepath.Join(v.dir, "data"),
		"--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--cgroup-parent", "/" + v.parent,
		"--add-runtime", "vm=" + runtime, "--default-runtime", "vm"}, v.config.flags)
}

// end ends the engine, and nothing else of the VM: nsenter is what has been started.
func (v *vm) end(signal syscall.Signal) {
	v.b.t.Helper()
	must(v.b.t, syscall.Kill(v.b.childOf(v.daemon), signal))
	<-v.daemon.done
}

// halt ends the VM, as pulling its plug does.
func (v *vm) halt() {
	v.b.t.Helper()
	v.init.kill()
	<-v.daemon.done
	if err := os.Remove(filepath.Join(v.dir, "sock")); !errors.Is(err, fs.ErrNotExist) {
		must(v.b.t, err)
	}
}

// agents lists the containers of agents, running or not, with their states.
func (v *vm) agents() string {
	v.b.t.Helper()
	return v.run(nil, "ps", "--all", "--no-trunc", "--filter", "label=io.vmbridge.agent", "--format", "{{.ID}} {{.State}}")
}

// awaitNoAgent waits until the engine has no agent, and no process of one runs.
func (v *vm) awaitNoAgent() {
	v.b.t.Helper()
	wait.Eventually(v.b.t, patience, "the agent is gone", func() error {
		if list := v.agents(); list != "" {
			return errors.New(list)
		}
		return v.noAgentRuns()
	})
}

// noAgentRuns looks for processes of agents in the VM.
func (v *vm) noAgentRuns() error {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", v.pid))
	must(v.b.t, err)
	for _, pid := range processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		here, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if here == namespace && strings.HasPrefix(string(line), "/vmbridge-guest\x00") {
			return fmt.Errorf("process %d is an agent", pid)
		}
	}
	return nil
}

// images lists the images of agents.
func (v *vm) images() []string {
	v.b.t.Helper()
	return strings.Fields(v.run(nil, "images", "--filter", "label=io.vmbridge.agent", "--format", "{{.Repository}}:{{.Tag}}"))
}

func hostName(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	must(t, err)
	return name
}
