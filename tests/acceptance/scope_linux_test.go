package acceptance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// A1: every kind of listener, TCP and UDP, is reachable on the host on exactly
// the families and the scope that Linux host networking would give.
func TestA1Scope(t *testing.T) {
	t.Parallel()
	for _, detect := range []string{"auto", "poll"} {
		t.Run(detect, func(t *testing.T) {
			t.Parallel()
			testScope(t, detect)
		})
	}
}

func testScope(t *testing.T, detect string) {
	b := startBed(t, bedConfig{detect: detect})
	// The host has a network of its own, which the guest does not see.
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)

	all := []string{"127.0.0.1", "127.8.9.10", hostWire.v4.String(), "::1", hostWire.v6.String()}
	four, six := all[:3], all[3:]
	for i, c := range []struct {
		bind  string
		only6 bool
		want  []string
	}{
		{"127.0.0.1", false, []string{"127.0.0.1"}},
		{"127.8.9.10", false, []string{"127.8.9.10"}},
		{"0.0.0.0", false, four},
		{"[::1]", false, []string{"::1"}},
		{"[::]", true, six},
		{"[::]", false, all},
		{"[::ffff:127.0.0.1]", false, []string{"127.0.0.1"}},
		{"[::ffff:0.0.0.0]", false, four},
	} {
		port := 7000 + i
		for _, network := range []string{"tcp", "udp"} {
			server, name := b.echo(socket.Spec{Network: network, Address: fmt.Sprintf("%s:%d", c.bind, port), OnlyV6: c.only6})
			b.view.port(name, "open")
			for _, a := range all {
				address := hostPort(a, port)
				var err error
				if slices.Contains(c.want, a) {
					err = try(b.host, network, address)
				} else {
					err = closed(b.host, network, address)
				}
				if err != nil {
					t.Errorf("%s (only6: %v), from the host at %s: %v", name, c.only6, address, err)
				}
			}
			must(t, server.Close())
			b.view.gone(name)
			for _, a := range c.want {
				b.unreachable(network, hostPort(a, port))
			}
		}
	}
}

// A1: an address that only the guest has is shown, with the reason why it is not
// forwarded.
func TestA1GuestOnlyAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	joinNamespaces(t, b.guest, guestWire, newNamespace(t), hostWire)
	b.startAgent()
	b.startDaemon()
	_, name := b.echo(socket.Spec{Network: "tcp", Address: guestWire.v4.String() + ":7000"})
	if p := b.view.port(name, "ignored"); p.Reason == "" {
		t.Errorf("%s is ignored without a reason: %+v", name, p)
	}
	if err := closed(b.host, "tcp", "127.0.0.1:7000"); err != nil {
		t.Error(err)
	}
}

func hostPort(address string, port int) string {
	return joinPort(mustAddr(address), uint16(port))
}
