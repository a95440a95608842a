package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// localhosts are the destinations that mean the loopback.
var localhosts = []string{"127.0.0.1", "::1", "0.0.0.0", "::"}

// F3: a guest's server always wins, whichever family it and its client use, and
// nothing leaves the guest: what its clients meet is what they meet on a machine
// of its own. It is so with the agent or the daemon dead, too.
func TestF3GuestFirst(t *testing.T) {
	t.Parallel()
	for _, life := range []struct {
		name string
		kill func(*bed)
	}{
		{"alive", func(*bed) {}},
		{"agent killed", func(b *bed) { b.agent.kill() }},
		{"daemon killed", func(b *bed) { b.daemon.kill() }},
	} {
		t.Run(life.name, func(t *testing.T) {
			t.Parallel()
			b := startReach(t, bedConfig{})
			testGuestFirst(t, b, func() { life.kill(b) })
		})
	}
}

// testGuestFirst compares the guest with a namespace that has only its servers.
func testGuestFirst(t *testing.T, b *bed, kill func()) {
	alone := newNamespace(t)
	var servers []socket.Spec
	for i, bind := range []string{"127.0.0.1", "[::1]", "0.0.0.0", "[::]", "[::]", "[::ffff:127.0.0.1]"} {
		for _, network := range []string{"tcp", "udp"} {
			address := fmt.Sprintf("%s:%d", bind, 7000+i)
			servers = append(servers, socket.Spec{Network: network, Address: address, OnlyV6: i == 4})
		}
	}
	const onlyHost = 7100
	var hosts []*greeter
	for port := range 7 {
		port += 7000
		if port == 7006 {
			port = onlyHost
		}
		for _, network := range []string{"tcp", "udp"} {
			hosts = append(hosts, greet(t, here{b.host},
				socket.Spec{Network: network, Address: fmt.Sprintf("[::]:%d", port)}, "host"))
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range localhosts {
			if name, err := who(b.guest, network, hostPort(address, onlyHost)); name != "host" {
				t.Fatalf("host reach is not on: %s %s is %q, %v", network, address, name, err)
			}
		}
	}
	for _, h := range hosts {
		h.greeted.Store(0)
	}
	for _, s := range servers {
		greet(t, here{b.guest}, s, "guest")
		greet(t, here{alone}, s, "guest")
	}
	kill()
	for _, s := range servers {
		port := s.Address[strings.LastIndexByte(s.Address, ':')+1:]
		for _, address := range localhosts {
			to := joinText(address, port)
			got, want := met(b.guest, s.Network, to), met(alone, s.Network, to)
			if got != want {
				t.Errorf("a client of %s %s, whose server has %s, meets %s; alone it is %s", s.Network, to, s.Address, got, want)
			}
		}
	}
	if b.agent.running() && b.daemon.running() {
		for i, h := range hosts {
			if n := h.greeted.Load(); n != 0 {
				t.Errorf("the host's server %d had %d clients", i, n)
			}
		}
		return
	}
	// What the host serves is refused now, as it would be without us.
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range localhosts {
			if err := closed(b.guest, network, hostPort(address, onlyHost)); err != nil {
				t.Errorf("%s %s: %v", network, address, err)
			}
		}
	}
}

// met is the name of who answers, or how nobody does.
func met(ns *netns.Namespace, network, address string) string {
	name, err := who(ns, network, address)
	switch {
	case refused(err):
		return "refused"
	case err != nil:
		return err.Error()
	}
	return name
}

func joinText(address, port string) string {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return address + ":" + port
}

// F4: the guest starts and stops a server on a port that the host serves, too.
// The very next connection is right, and so is the next datagram of a client
// whose socket stays.
func TestF4SwitchOver(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	const rounds = 50
	for _, c := range []struct{ bind, address string }{
		{"127.0.0.1:7000", "127.0.0.1:7000"},
		{"[::1]:7001", "[::1]:7001"},
		{"127.0.0.1:7002", "0.0.0.0:7002"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network+" "+c.address, func(t *testing.T) {
				t.Parallel()
				b := b.in(t)
				spec := socket.Spec{Network: network, Address: c.bind}
				greet(t, here{b.host}, spec, "host")
				client := b.guestClient("udp", c.address)
				expect := func(round int, want string) {
					t.Helper()
					if name, err := who(b.guest, network, c.address); name != want {
						t.Fatalf("round %d: met %q, want %s: %v", round, name, want, err)
					}
					if network == "udp" {
						must(t, client.expect(mustPort(c.address), fmt.Sprint("round ", round, " at the ", want), want))
					}
				}
				for round := range rounds {
					expect(round, "host")
					g := greet(t, here{b.guest}, spec, "guest")
					expect(round, "guest")
					must(t, g.Close())
				}
				expect(rounds, "host")
			})
		}
	}
}

// F5: the forward of another guest's port is refused, too: no guest reaches
// another one.
func TestF5OtherGuest(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	other := *b
	other.guest = newNamespace(t)
	other.dir = shortDir(t)
	must(t, os.WriteFile(filepath.Join(other.dir, "guest.key"), []byte(b.key.String()+"\n"), 0o600))
	b.config.flags = []string{"--link", "other=" + other.linkURL()}
	b.startAgent()
	other.startAgent()
	b.startDaemon()
	b.awaitLink()
	b.awaitHostReach(control.On)
	for _, network := range []string{"tcp", "udp"} {
		greet(t, here{other.guest}, socket.Spec{Network: network, Address: "[::]:7000"}, "other")
		b.view.port(network+" [::]:7000", control.PortOpen)
		for _, address := range localhosts {
			if err := closed(b.guest, network, hostPort(address, 7000)); err != nil {
				t.Errorf("%s %s: %v", network, address, err)
			}
		}
	}
}

// F5: a port that only a forward of ours serves on the host is refused. Else a
// connection would go round and round.
func TestF5NoLoop(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{detect: "poll"}) // the slower of the two to notice
	joinNamespaces(t, b.guest, guestWire, newNamespace(t), hostWire)
	b.startReach()
	// A socket that only takes what comes from a cable is forwarded, and is
	// nobody whom a client on the loopback could meet.
	for _, network := range []string{"tcp", "udp"} {
		f, err := b.maker.Open(socket.Spec{Network: network, Address: "0.0.0.0:7000", Device: guestWire.device})
		must(t, err)
		defer f.Close()
		b.view.port(network+" 0.0.0.0:7000", "open")
		for _, address := range localhosts {
			for range 10 {
				if err := closed(b.guest, network, hostPort(address, 7000)); err != nil {
					t.Fatalf("%s %s: %v", network, address, err)
				}
			}
		}
	}
	// A server that has just gone leaves its forward for a moment.
	for _, network := range []string{"tcp", "udp"} {
		for range 20 {
			server, _ := b.echo(socket.Spec{Network: network, Address: "127.0.0.1:7001"})
			b.reach(network, "127.0.0.1:7001")
			must(t, server.Close())
			for _, address := range []string{"127.0.0.1:7001", "[::1]:7001"} {
				if err := closed(b.guest, network, address); err != nil {
					t.Fatalf("%s %s: %v", network, address, err)
				}
			}
		}
	}
	reached, err := b.reached()
	must(t, err)
	for _, r := range reached {
		if r.Flows != 0 || r.State == "open" {
			t.Errorf("%+v", r)
		}
	}
}
