package acceptance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// hostAgent serves a range of ports of the host, as a program of that name which was
// started the way that Lima starts its forwarder for a VM. It is the daemon's user's.
func (b *bed) hostAgent(program, instance, network, address string, first, last int) *process {
	b.t.Helper()
	path := filepath.Join(b.dir, program)
	// A link, because a copy that another test's fork has open cannot be started.
	if err := os.Link(built.server(b.t), path); !errors.Is(err, fs.ErrExist) {
		must(b.t, err)
	}
	folder := "/home/ada/.lima/" + instance
	cmd := exec.Command(path, "hostagent", "--pidfile", folder+"/ha.pid", "--socket", folder+"/ha.sock", instance,
		network, address, fmt.Sprint(first), fmt.Sprint(last))
	if b.config.ordinaryUser {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	p := b.spawn(b.host, program, cmd)
	wait.Eventually(b.t, patience, program+" listens", func() error { return try(b.host, network[:3], joinText(address, fmt.Sprint(last))) })
	return p
}

// Lima's own forwarder has the port: it is carried, with the product and its switch,
// and no conflict anywhere. It lets go, and the forward opens within 2 s.
func TestCarried(t *testing.T) {
	asBoth(t, func(t *testing.T, b *bed) {
		for _, network := range []string{"tcp", "udp"} {
			const address = "127.0.0.1:7000"
			holder := b.hostAgent("limactl", "dev", network+"4", "127.0.0.1", 7000, 7000)
			server, name := b.echo(socket.Spec{Network: network, Address: address})
			p := b.view.port(name, control.PortCarried)
			for _, part := range []string{network + " " + address, `carried by Lima "dev"`, fmt.Sprintf("limactl (pid %d)", holder.pid()),
				"no other", "portForwards", "ignore: true"} {
				if !strings.Contains(p.Reason, part) {
					t.Errorf("the reason is %q, and lacks %q", p.Reason, part)
				}
			}
			if n := len(b.view.events(name)); n != 1 || p.Host[0].State != control.PortCarried {
				t.Errorf("%d events: %+v", n, b.view.events(name))
			}
			s, err := b.status()
			must(t, err)
			if s.Counts.Carried != 1 || s.Counts.Conflict != 0 {
				t.Errorf("counts: %+v", s.Counts)
			}
			text, err := b.vmbridge("status")
			must(t, err)
			if !strings.Contains(text, `1 port by Lima "dev"; they open here when it lets go: portForwards`) {
				t.Errorf("status:\n%s", text)
			}
			holder.kill()
			wait.Eventually(t, 2*time.Second, name+" opens by itself", func() error { return try(b.host, network, address) })
			b.view.port(name, control.PortOpen)
			must(t, server.Close())
			b.view.gone(name)
		}
		if strings.Contains(b.daemon.output(), "conflict") {
			t.Errorf("the log tells of a conflict:\n%s", b.daemon.output())
		}
	})
}

// What only looks like the VM's own forwarder is a conflict: an equal program of
// another name, and the forwarder of a VM that another link leads to.
func TestCarriedNot(t *testing.T) {
	t.Parallel()
	conflict := func(t *testing.T, b *bed, program, reason string) {
		t.Helper()
		b.hostAgent(program, "dev", "tcp4", "127.0.0.1", 7000, 7000)
		_, name := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
		if p := b.view.port(name, control.PortConflict); !strings.Contains(p.Reason, reason) {
			t.Errorf("the reason is %q, and lacks %q", p.Reason, reason)
		}
	}
	t.Run("name", func(t *testing.T) {
		t.Parallel()
		conflict(t, startBed(t, bedConfig{}), "another", "in use by another (pid ")
	})
	t.Run("link", func(t *testing.T) {
		t.Parallel()
		// There is no limactl, so that this link is down, but says where it leads.
		b := startBed(t, bedConfig{flags: []string{"--link", "lima=exec:limactl shell dev sudo true"}})
		conflict(t, b, "limactl", `the forwarder of Lima "dev" (perhaps the link's, which does not say so: link "lima" leads to that VM)`)
	})
	t.Run("two", func(t *testing.T) {
		t.Parallel()
		b := startBed(t, bedConfig{})
		b.hostAgent("limactl", "other", "tcp4", "127.0.0.1", 7001, 7001)
		conflict(t, b, "limactl", `the forwarder of Lima "other" runs as well`)
	})
}

// 200 ports that are carried are one line of the log and one of the status.
func TestCarriedMany(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	const first, last = 7000, 7199
	holder := b.hostAgent("limactl", "dev", "tcp4", "127.0.0.1", first, last)
	start := time.Now()
	b.spawn(b.guest, "server", exec.Command(built.server(t), "tcp4", "127.0.0.1", fmt.Sprint(first), fmt.Sprint(last)))
	count := func(state string) (n int) {
		for _, p := range b.view.ports {
			if p.State == state {
				n++
			}
		}
		return n
	}
	b.view.wait("all are carried", func() bool { return count(control.PortCarried) == last-first+1 })
	t.Logf("200 ports are carried and told after %v", time.Since(start))
	text, err := b.vmbridge("status")
	must(t, err)
	if n := strings.Count(text, "by Lima"); n != 1 || !strings.Contains(text, `200 ports by Lima "dev"`) {
		t.Errorf("%d lines about Lima:\n%s", n, text)
	}
	holder.kill()
	wait.Eventually(t, 2*time.Second, "the last opens", func() error { return try(b.host, "tcp", "127.0.0.1:7199") })
	b.view.wait("all open", func() bool { return count(control.PortOpen) == last-first+1 })
	log := b.daemon.output()
	if n := strings.Count(log, `"product":"Lima`); n != 1 || strings.Contains(log, "conflict") {
		t.Errorf("%d lines about Lima:\n%s", n, log)
	}
}
