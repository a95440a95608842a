package acceptance

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// A2: however a program comes to listen, it is forwarded.
func TestA2WaysToListen(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	for _, c := range []struct {
		name string
		s    socket.Spec
	}{
		{"port 0", socket.Spec{Network: "tcp", Address: "127.0.0.1:0"}},
		{"listen without bind", socket.Spec{Network: "tcp"}},
		{"MPTCP", socket.Spec{Network: "tcp", Address: "127.0.0.1:7000", MPTCP: true}},
		{"MPTCP, dual-stack", socket.Spec{Network: "tcp", Address: "[::]:7001", MPTCP: true}},
		// A socket of this program is always made by a thread that is not its first.
		{"secondary thread", socket.Spec{Network: "tcp", Address: "127.0.0.1:7002"}},
		{"secondary thread, UDP", socket.Spec{Network: "udp", Address: "127.0.0.1:7002"}},
	} {
		_, name := b.echo(c.s)
		network, address, _ := strings.Cut(b.loopbackOf(name), " ")
		if err := wait.Try(patience, func() error { return try(b.host, network, address) }); err != nil {
			t.Errorf("%s: %s: %v", c.name, name, err)
		}
	}
}

// loopbackOf is where a client reaches a port of the view, as in "tcp 0.0.0.0:80".
func (b *bed) loopbackOf(name string) string {
	network, address, _ := strings.Cut(name, " ")
	ap := netip.MustParseAddrPort(address)
	if ap.Addr().IsUnspecified() {
		return network + " " + joinPort(mustAddr("127.0.0.1"), ap.Port())
	}
	return name
}

// A2: UDP bound to port 0 is a client.
func TestA2PortZeroOfUDP(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	_, client := b.echo(socket.Spec{Network: "udp", Address: "127.0.0.1:0"})
	b.mark()
	b.view.never(client)
	if err := closed(b.host, "udp", strings.TrimPrefix(client, "udp ")); err != nil {
		t.Error(err)
	}
}

// mark opens a UDP and then a TCP port that nothing else uses and waits until
// they are listed: what was made before and is not listed now never will be.
func (b *bed) mark() {
	b.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		server, name := b.echo(socket.Spec{Network: network, Address: "127.0.0.1:1999"})
		b.view.port(name, control.PortOpen)
		must(b.t, server.Close())
		b.view.gone(name)
	}
}

// A2: a socket that a child inherits over fork and exec: the port stays when the
// process that made it has gone, and goes with the heir.
func TestA2Inherited(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	r, w, err := os.Pipe() // the heir lives until this closes
	must(t, err)
	defer w.Close()
	const name = "tcp 127.0.0.1:7000"
	cmd := exec.Command(built.server(t), "bequeath", "tcp4", "127.0.0.1:7000")
	cmd.Stdin = r
	ancestor := b.spawn(b.guest, "ancestor", cmd)
	must(t, r.Close())
	<-ancestor.done
	must(t, ancestor.err)
	b.reach("tcp", "127.0.0.1:7000")
	b.view.wait("the heir is the owner", func() bool {
		pid := b.view.ports[name].Owner.PID
		return pid != 0 && pid != ancestor.pid()
	})
	must(t, w.Close())
	b.unreachable("tcp", "127.0.0.1:7000")
	b.view.gone(name)
	for i, e := range b.view.events(name) {
		if last := i == len(b.view.events(name))-1; (e.Type == control.Gone) != last {
			t.Errorf("the port went away in between: %+v", b.view.events(name))
		}
	}
}

// A2, C2: of a pair of SO_REUSEPORT sockets one closes: the port stays, with
// every client served, until the other closes too.
func TestA2C2ReusePort(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	for _, network := range []string{"tcp", "udp"} {
		s := socket.Spec{Network: network, Address: "127.0.0.1:7000", ReusePort: true}
		first, name := b.echo(s)
		second, _ := b.echo(s)
		b.view.port(name, control.PortOpen)
		must(t, first.Close())
		b.mark() // whatever that does is done
		for range 20 {
			must(t, try(b.host, network, "127.0.0.1:7000"))
		}
		if events := b.view.events(name); len(events) != 1 {
			t.Errorf("%s: want one event, got %+v", name, events)
		}
		must(t, second.Close())
		b.unreachable(network, "127.0.0.1:7000")
	}
}

// A3: a listener that is older than the agent, and than the daemon, and that
// outlives a restart of either, is forwarded.
func TestA3Order(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	for _, network := range []string{"tcp", "udp"} {
		b.echo(socket.Spec{Network: network, Address: "[::]:7000"})
	}
	b.startAgent()
	b.startDaemon()
	b.servesBoth("7000")
	b.agent.terminate()
	b.startAgent()
	b.servesBoth("7000")
	b.daemon.terminate()
	b.startDaemon()
	b.servesBoth("7000")
	// The agent goes first this time, and comes back to a daemon that waits.
	b.agent.terminate()
	b.unreachable("tcp", "127.0.0.1:7000")
	b.startAgent()
	b.servesBoth("7000")
}

// A5: bind without listen never shows; a socket that lives under 50 ms never
// becomes a forward or a conflict that anybody sees. It runs alone: what delays
// the product makes sockets look older.
func TestA5Reservation(t *testing.T) {
	b := startBed(t, bedConfig{noRace: true})
	const busy, free, bound = "127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002"
	listen(t, here{b.host}, socket.Spec{Address: busy}) // would be a conflict
	bare, err := b.maker.Open(socket.Spec{Network: "tcp", Address: bound, Bare: true})
	must(t, err)
	defer bare.Close()
	const reservation = 40 * time.Millisecond // less than 50: our own clock is not the product's
	for range 50 {
		for _, s := range []socket.Spec{{Network: "tcp", Address: busy}, {Network: "tcp", Address: free}, {Network: "udp", Address: free}} {
			started := time.Now()
			must(t, b.maker.Flash(s))
			if took := time.Since(started); took > reservation {
				t.Skipf("this machine is so busy that a socket lived for %v", took)
			}
		}
	}
	b.mark()
	for _, address := range []string{busy, free, bound} {
		b.view.never("tcp " + address)
		b.view.never("udp " + address)
		if address != busy {
			must(t, closed(b.host, "tcp", address))
		}
	}
	if log := b.daemon.output(); strings.Contains(log, "conflict") {
		t.Errorf("the daemon's log mentions a conflict:\n%s", log)
	}
}

// A6: UDP clients are never exported; 20,000 short-lived ones leave no socket on
// the host.
func TestA6Clients(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{noRace: true})
	server := bindUDP(t, b.maker, socket.Spec{Address: "127.0.0.1:53"})
	must(t, b.guest.Do(func() error {
		for i := range 20000 {
			var local net.Addr
			if i%4 == 0 { // as resolvers do: a random port, but asked for
				local = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2000 + i/4%1000}
			}
			c, err := (&net.Dialer{LocalAddr: local}).Dial("udp", server.LocalAddr().String())
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("?"))
			c.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}))
	long, err := dial(b.guest, "udp", server.LocalAddr().String()) // QUIC stays for minutes
	must(t, err)
	defer long.Close()
	b.mark()
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
	if n := len(b.view.history); n != 6 { // ready, 53 ignored, and the mark's four
		t.Errorf("%d events: %+v", n, b.view.history)
	}
}

// A7: the agent's own sockets, the default ignore list, services of the VM
// itself, and other network namespaces are never forwarded.
func TestA7Ignored(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{transport: "tcp"}) // so that the agent listens, too
	for _, name := range []string{"tcp 0.0.0.0:22", "udp 0.0.0.0:53", "tcp 0.0.0.0:53", "udp 0.0.0.0:67", "udp 0.0.0.0:68",
		"tcp 0.0.0.0:111", "udp 0.0.0.0:123", "udp 0.0.0.0:4789", "udp 0.0.0.0:5353", "udp 0.0.0.0:5355"} {
		network, address, _ := strings.Cut(name, " ")
		b.echo(socket.Spec{Network: network, Address: address})
		if p := b.view.port(name, control.PortIgnored); p.Reason == "" {
			t.Errorf("%s is ignored without a reason", name)
		}
	}
	// A service of the VM is known by its name.
	sshd := filepath.Join(b.dir, "sshd")
	content, err := os.ReadFile(built.server(t))
	must(t, err)
	must(t, os.WriteFile(sshd, content, 0o755))
	b.spawn(b.guest, "sshd", exec.Command(sshd, "tcp4", "0.0.0.0", "2222", "2222"))
	if p := b.view.port("tcp 0.0.0.0:2222", control.PortIgnored); !strings.Contains(p.Reason, "sshd") {
		t.Errorf("the reason is %q", p.Reason)
	}
	// A container on a network of its own.
	listen(t, here{newNamespace(t)}, socket.Spec{Address: "0.0.0.0:7000"})
	b.mark()
	b.view.never("tcp 0.0.0.0:7000")
	b.view.never("tcp " + joinPort(guestWire.v4, 732))
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
}

// A8: the guest has no IPv6, or the host has none: IPv4 works, and nobody goes
// round in circles about it.
func TestA8WithoutIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		lack func(b *bed) error
	}{
		{"guest", func(b *bed) error { return b.guest.Do(disableIPv6) }},
		{"host", func(b *bed) error { return b.host.Do(disableIPv6) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, bedConfig{})
			must(t, c.lack(b))
			b.startAgent()
			b.startDaemon()
			b.echo(socket.Spec{Network: "tcp", Address: "0.0.0.0:7000"})
			b.echo(socket.Spec{Network: "udp", Address: "0.0.0.0:7000"})
			b.echo(socket.Spec{Network: "tcp", Address: "[::]:7001"})
			b.reach("tcp", "127.0.0.1:7000")
			b.reach("udp", "127.0.0.1:7000")
			b.reach("tcp", "127.0.0.1:7001")
			if c.name == "host" {
				b.echo(socket.Spec{Network: "tcp", Address: "[::1]:7002"})
				if p := b.view.port("tcp [::1]:7002", control.PortIgnored); !strings.Contains(p.Reason, "IPv6") {
					t.Errorf("the reason is %q", p.Reason)
				}
			}
			b.mark()
			for _, p := range []*process{b.agent, b.daemon} {
				if lines := strings.Count(p.output(), "\n"); lines > 20 {
					t.Errorf("%s: %d lines of log", p.name, lines)
				}
			}
		})
	}
}

// disableIPv6 is for the namespace of the thread.
func disableIPv6() error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
}

// A9: a port changes its address but not its number: the host's scope narrows.
func TestA9Narrows(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	joinNamespaces(t, b.host, hostWire, newNamespace(t), guestWire)
	b.startAgent()
	b.startDaemon()
	lan := hostPort(hostWire.v4.String(), 7000)
	for _, network := range []string{"tcp", "udp"} {
		wide, _ := b.echo(socket.Spec{Network: network, Address: "0.0.0.0:7000"})
		b.reach(network, lan)
		must(t, wide.Close())
		narrow, name := b.echo(socket.Spec{Network: network, Address: "127.0.0.1:7000"})
		b.view.port(name, control.PortOpen)
		b.view.gone(fmt.Sprintf("%s 0.0.0.0:7000", network))
		must(t, closed(b.host, network, lan))
		must(t, try(b.host, network, "127.0.0.1:7000"))
		must(t, narrow.Close())
		b.unreachable(network, "127.0.0.1:7000")
	}
}
