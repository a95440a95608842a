package acceptance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// asBoth runs a test with root's daemon and with an ordinary user's.
func asBoth(t *testing.T, f func(t *testing.T, b *bed)) {
	t.Parallel()
	for _, user := range []string{"root", "user"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			f(t, startBed(t, bedConfig{ordinaryUser: user == "user"}))
		})
	}
}

// B1: the host's port is taken: the guest's program is untouched, and exactly one
// conflict is reported, with protocol, address, port and owner. B2: the owner
// leaves, and the forward opens by itself within 2 s.
func TestB1B2Conflict(t *testing.T) {
	asBoth(t, func(t *testing.T, b *bed) {
		for _, network := range []string{"tcp", "udp"} {
			b.testConflict(network)
		}
	})
}

func (b *bed) testConflict(network string) {
	t := b.t
	t.Helper()
	const address = "127.0.0.1:7000"
	flags := "-lk"
	if network == "udp" {
		flags += "u"
	}
	// It belongs to root, whose processes an ordinary user cannot look into.
	holder := b.nc(b.host, flags, "127.0.0.1", "7000")
	wait.Eventually(t, patience, "nc listens on the host", func() error {
		if len(b.hostSockets()) == 0 {
			return fmt.Errorf("the host has no socket")
		}
		return nil
	})
	server, name := b.echo(socket.Spec{Network: network, Address: address})
	p := b.view.port(name, control.PortConflict)
	for _, part := range []string{network, address, b.ownerOf(holder)} {
		if !strings.Contains(p.Reason, part) {
			t.Errorf("the reason is %q, and lacks %q", p.Reason, part)
		}
	}
	must(t, try(b.guest, network, address)) // untouched
	b.mark()                                // and time goes by
	if n := len(b.view.events(name)); n != 1 {
		t.Errorf("%d events for one conflict: %+v", n, b.view.events(name))
	}
	if n := strings.Count(b.daemon.output(), `"msg":"port conflict"`); n != 1 {
		t.Errorf("the log tells of %d conflicts:\n%s", n, b.daemon.output())
	}

	holder.kill()
	wait.Eventually(t, 2*time.Second, name+" opens by itself", func() error { return try(b.host, network, address) })
	b.view.port(name, control.PortOpen)
	must(t, server.Close())
	b.view.gone(name)
	// The next conflict is to be the only one in the log.
	b.daemon.terminate()
	b.startDaemon()
	b.awaitLink()
}

// ownerOf is how a conflict names a process of root's.
func (b *bed) ownerOf(p *talker) string {
	if b.config.ordinaryUser {
		return "uid 0 (root), hidden by the system"
	}
	return fmt.Sprintf("nc.openbsd (pid %d)", p.pid())
}

// B3: a TCP conflict does not block UDP, nor IPv4 IPv6; the two sockets of one
// dual-stack service do not conflict with each other.
func TestB3Independence(t *testing.T) {
	asBoth(t, func(t *testing.T, b *bed) {
		holder := listen(t, here{b.host}, socket.Spec{Address: "0.0.0.0:7000"})
		b.echo(socket.Spec{Network: "tcp", Address: "[::]:7000"})
		b.echo(socket.Spec{Network: "udp", Address: "[::]:7000"})
		b.view.port("tcp [::]:7000", control.PortConflict)
		b.reach("udp", "127.0.0.1:7000")
		b.reach("udp", "[::1]:7000")
		b.reach("tcp", "[::1]:7000")
		must(t, holder.Close())
		b.reach("tcp", "127.0.0.1:7000")

		for _, network := range []string{"tcp", "udp"} {
			b.echo(socket.Spec{Network: network, Address: "0.0.0.0:7001"})
			b.echo(socket.Spec{Network: network, Address: "[::]:7001", OnlyV6: true})
			for _, name := range []string{network + " 0.0.0.0:7001", network + " [::]:7001"} {
				b.view.port(name, control.PortOpen)
				if n := len(b.view.events(name)); n != 1 {
					t.Errorf("%s: %+v", name, b.view.events(name))
				}
			}
			b.reach(network, "127.0.0.1:7001")
			b.reach(network, "[::1]:7001")
		}
	})
}

// B4: a port that the user may not bind is reported as a matter of permission;
// root may, and gets it.
func TestB4Permission(t *testing.T) {
	asBoth(t, func(t *testing.T, b *bed) {
		for _, network := range []string{"tcp", "udp"} {
			_, name := b.echo(socket.Spec{Network: network, Address: "0.0.0.0:80"})
			if !b.config.ordinaryUser {
				b.reach(network, "127.0.0.1:80")
				continue
			}
			p := b.view.port(name, control.PortFailed)
			if !strings.Contains(p.Reason, "permission") || strings.Contains(p.Reason, "in use") {
				t.Errorf("%s: the reason is %q", name, p.Reason)
			}
		}
	})
}
