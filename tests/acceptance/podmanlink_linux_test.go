package acceptance

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// The same with Podman, which serves Docker's API: started, ended, and crashed.
func TestPodmanLink(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{podman: true})
	b := v.b
	v.container("web", image, "server", "tcp", "::", "8000", "8000", "udp", "::", "8000", "8000")
	t.Logf("the first forward, with the image to be loaded: %v", b.startTimed("127.0.0.1:8000"))
	b.servesBoth("8000")
	b.view.port("tcp [::]:8000", control.PortOpen)
	b.view.wait("the container is named", func() bool {
		return b.view.ports["tcp [::]:8000"].Owner.Container == "web"
	})
	b.awaitHostReach(control.On)
	host := b.nc(b.host, "-lv", "127.0.0.1", "9000")
	host.says("Listening")
	client := b.talk(b.guest, v.command("run", "--rm", "-i", "--net=host", image, "nc", "127.0.0.1", "9000"))
	talk.Chat(client, host, "out of the container")
	if s := b.awaitIsolation(control.On, "off"); len(s.Warnings) > 0 {
		t.Errorf("warnings %q", s.Warnings)
	}

	other := *b
	second := &other
	second.host, second.home = newNamespace(t), filepath.Join(b.dir, "home2")
	second.startDaemon()
	second.awaitDown("the agent of another vmbridge", b.home)
	second.daemon.terminate()
	must(t, try(b.host, "tcp", "127.0.0.1:8000"))

	b.daemon.terminate()
	v.awaitNoAgent()
	t.Logf("the first forward, with the image loaded: %v", b.startTimed("127.0.0.1:8000"))

	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		v.end(signal) // its containers live on, and the link's does not
		wait.Eventually(t, patience, "the link is down", func() error {
			s, err := b.status()
			if err == nil && s.Links[0].State == control.LinkUp {
				err = errors.New("it is up")
			}
			return err
		})
		began := time.Now()
		v.start()
		b.awaitLink()
		b.reach("tcp", "127.0.0.1:8000")
		t.Logf("after the engine's %v the link is back within %v of its start", signal, time.Since(began))
	}
	b.daemon.kill()
	v.awaitNoAgent()
	b.startDaemon()
	b.awaitLink()
	b.reach("tcp", "127.0.0.1:8000")
	if list := v.agents(); strings.Count(list, "running") != 1 {
		t.Errorf("agents: %q", list)
	}
}
