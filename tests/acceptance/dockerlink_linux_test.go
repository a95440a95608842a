package acceptance

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// A VM that somebody else has started, and one command: the engine's containers are
// reached and reach the host, by name; nothing of it is left behind; the image is.
func TestDockerLink(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	b := v.b
	v.container("web", image, "server", "tcp", "::", "8000", "8000", "udp", "::", "8000", "8000")
	b.startDaemon()
	b.servesBoth("8000")
	p := b.view.port("tcp [::]:8000", control.PortOpen)
	b.view.wait("the container is named", func() bool {
		p = b.view.ports["tcp [::]:8000"]
		return p.Owner.Container == "web" && p.Owner.Image == image && p.Owner.Process == "server"
	})
	server := b.talk(b.guest, v.command("run", "--rm", "-i", "--net=host", "--name", "nc", image, "nc", "-lkv", "0.0.0.0", "8001"))
	b.view.port("tcp 0.0.0.0:8001", control.PortOpen)
	talk.Chat(b.nc(b.host, "localhost", "8001"), server, "into the container")

	// The other way.
	b.awaitHostReach(control.On)
	host := b.nc(b.host, "-lv", "127.0.0.1", "9000")
	host.says("Listening")
	client := b.talk(b.guest, v.command("run", "--rm", "-i", "--net=host", image, "nc", "127.0.0.1", "9000"))
	talk.Chat(client, host, "out of the container")

	// The agent itself is none of this.
	if s := b.awaitIsolation(control.On, "off"); len(s.Warnings) > 0 {
		t.Errorf("warnings %q", s.Warnings)
	}
	b.view.mu.Lock()
	for name, p := range b.view.ports {
		if strings.Contains(p.Owner.Container+p.Owner.Process, "vmbridge") {
			t.Errorf("the agent is listed: %s %+v", name, p.Owner)
		}
	}
	b.view.mu.Unlock()
	about := v.run(nil, "inspect", "vmbridge-agent", "--format",
		"{{.HostConfig.LogConfig.Type}} {{.HostConfig.NetworkMode}} {{.HostConfig.PidMode}} {{.HostConfig.CgroupnsMode}} {{.Config.Tty}} {{.Config.StdinOnce}} {{index .Config.Labels \"io.vmbridge.link\"}}")
	if about != "none host host host false true vm" {
		t.Errorf("the agent's container is %q", about)
	}

	pid := v.run(nil, "inspect", "vmbridge-agent", "--format", "{{.State.Pid}}") // as the VM sees it
	if name := v.runInside("cat", "/proc/"+pid+"/comm"); name != "vmbridge-guest" {
		t.Errorf("the agent's process is called %q", name)
	}
	if own, its := v.runInside("readlink", "/proc/1/ns/mnt"), v.runInside("readlink", "/proc/"+pid+"/ns/mnt"); own != its {
		t.Errorf("the agent is in mount namespace %s, and the VM's is %s", its, own)
	}

	before := v.images()
	if len(before) != 1 {
		t.Errorf("images %q", before)
	}
	b.daemon.terminate()
	v.awaitNoAgent()

	b.startDaemon()
	b.servesBoth("8000")
	if after := v.images(); fmt.Sprint(after) != fmt.Sprint(before) || strings.Contains(b.daemon.output(), "the image of the agent is loaded") {
		t.Errorf("images %q, and before %q", after, before)
	}
	b.daemon.terminate()
	v.awaitNoAgent()
}

// The toggle: without host networking the engine has no agent.
func TestDockerLinkToggle(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{fromFile: true}, vmConfig{})
	b := v.b
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.startDaemon()
	b.reach("tcp", "127.0.0.1:7000")
	for range 2 {
		b.exits(0, "off", "disable")
		if err := closed(b.host, "tcp", "127.0.0.1:7000"); err != nil {
			t.Error(err)
		}
		v.awaitNoAgent()
		wait.Eventually(t, patience, "the link says why it is down", func() error {
			s, err := b.status()
			if err == nil && (s.Links[0].State != control.LinkDown || !strings.Contains(s.Links[0].Reason, "host networking is off")) {
				err = fmt.Errorf("it is %s: %s", s.Links[0].State, s.Links[0].Reason)
			}
			return err
		})
		b.exits(0, "on", "enable")
		b.reach("tcp", "127.0.0.1:7000")
	}
}

// The engine restarts, dies, and so does the daemon: the link comes back each time,
// and nobody but it has an agent.
func TestDockerLinkCrashes(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	b := v.b
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.startDaemon()
	b.reach("tcp", "127.0.0.1:7000")
	one := func(what string) {
		t.Helper()
		b.awaitLink()
		b.reach("tcp", "127.0.0.1:7000")
		wait.Eventually(t, patience, "one agent after "+what, func() error {
			if list := v.agents(); strings.Count(list, "running") != 1 || strings.Contains(list, "\n") {
				return fmt.Errorf("agents: %q", list)
			}
			return nil
		})
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		v.end(signal)
		wait.Eventually(t, patience, "the link is down", func() error {
			s, err := b.status()
			if err == nil && s.Links[0].State == control.LinkUp {
				err = fmt.Errorf("it is up")
			}
			return err
		})
		b.unreachable("tcp", "127.0.0.1:7000")
		began := time.Now()
		v.start()
		one(fmt.Sprintf("the engine's %v", signal))
		t.Logf("after the engine's %v the link is back within %v of its start", signal, time.Since(began))
	}

	// The daemon crashes: its agent ends by itself.
	b.daemon.kill()
	v.awaitNoAgent()
	b.startDaemon()
	one("the daemon's crash")

	// Daemon and engine crash, so that nobody removes what they leave.
	v.end(syscall.SIGKILL)
	b.daemon.kill()
	v.start()
	b.startDaemon()
	one("both crashes")

	// A container that was made and never started.
	b.daemon.kill()
	v.awaitNoAgent()
	v.run(nil, "create", "--name", "vmbridge-agent", "--label", "io.vmbridge.agent=x",
		"--label", "io.vmbridge.home="+hostName(t)+":"+b.home, "--label", "io.vmbridge.link=vm", image, "server")
	b.startDaemon()
	one("a crash between making a container and starting it")

	// The VM goes, and another one comes.
	v.halt()
	wait.Eventually(t, patience, "the link says that the VM is gone", func() error {
		s, err := b.status()
		if err == nil && (s.Links[0].State != control.LinkDown || !strings.Contains(s.Links[0].Reason, "the engine does not answer: DOCKER_HOST")) {
			err = fmt.Errorf("it is %s: %s", s.Links[0].State, s.Links[0].Reason)
		}
		return err
	})
	v.boot()
	v.start()
	one("the VM's end")
}
