package acceptance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// E1: echo from the host and from another machine's address, for many clients:
// every reply goes to its own client, from the address and port it had asked.
func TestE1Datagrams(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)
	_, name := b.echo(socket.Spec{Network: "udp", Address: "[::]:7000"})
	b.view.port(name, "open")
	testDatagramClients(t, b, 300, "127.0.0.1:7000", "127.8.9.10:7000", "[::1]:7000",
		hostPort(hostWire.v4.String(), 7000), hostPort(hostWire.v6.String(), 7000))
	must(t, datagramClients(lan, 300, hostPort(hostWire.v4.String(), 7000)))
	must(t, datagramClients(lan, 300, hostPort(hostWire.v6.String(), 7000)))
}

func testDatagramClients(t *testing.T, b *bed, clients int, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		if err := datagramClients(b.host, clients, address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// datagramClients asks a server through many sockets at once. They are connected,
// so the kernel gives them only replies from where they sent to.
func datagramClients(ns *netns.Namespace, n int, address string) error {
	clients := make([]net.Conn, n)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	err := ns.Do(func() (err error) {
		for i := range clients {
			if clients[i], err = net.Dial("udp", address); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, wait.Together(n, func(i int) error {
		a := &asker{Conn: clients[i]}
		for round := range 3 {
			if err := a.ask(fmt.Appendf(nil, "client %d, round %d", i, round)); err != nil {
				return fmt.Errorf("client %d, round %d: %w", i, round, err)
			}
		}
		return nil
	}))
}

// E2: datagrams of every size keep their boundaries, and are answered whole.
func TestE2Sizes(t *testing.T) {
	onEveryTransport(t, func(t *testing.T, b *bed) {
		_, name := b.echo(socket.Spec{Network: "udp", Address: "[::]:7000"})
		b.view.port(name, control.PortOpen)
		for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
			a := &asker{Conn: b.dial("udp", address)}
			for _, size := range []int{0, 1, 1472, 1473, 9000, 32768, 32769, 65507} {
				if err := a.ask(traffic.Noise(size)); err != nil {
					t.Errorf("%s: %d bytes: %v", address, size, err)
				}
			}
		}
	})
}

// E3: the flows of a link are capped, and the least recently used goes first: its
// client works again, as a new flow. (The idle timeout is a matter of minutes, and
// held by the tests of the package that has it.)
func TestE3Cap(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{noRace: true})
	server := bindUDP(t, b.maker, socket.Spec{Address: "127.0.0.1:7000"})
	b.view.port("udp 127.0.0.1:7000", control.PortOpen)
	flows := newFlowCounter(server)
	const limit, more = 8192, 100
	ask := func(a *asker, round int) int {
		must(t, a.ask(fmt.Appendf(nil, "%s %d", a.LocalAddr(), round)))
		return flows.of(a.LocalAddr().String())
	}
	idle := &asker{Conn: b.dial("udp", "127.0.0.1:7000")}
	busy := &asker{Conn: b.dial("udp", "127.0.0.1:7000")}
	idleFlow, busyFlow := ask(idle, 0), ask(busy, 0)
	for i := range limit + more {
		ask(&asker{Conn: b.dial("udp", "127.0.0.1:7000")}, 0)
		if i%1000 == 0 && ask(busy, i+1) != busyFlow {
			t.Fatalf("the flow of a client that is at work went after %d others", i)
		}
	}
	ports, err := control.NewClient(b.home).Ports(t.Context())
	must(t, err)
	if n := ports[0].Flows; n != limit {
		t.Errorf("there are %d flows, want %d", n, limit)
	}
	if ask(busy, -1) != busyFlow {
		t.Error("the flow of a client that is at work has gone")
	}
	if ask(idle, -1) == idleFlow {
		t.Error("the least recently used flow is still there")
	}
}

// flowCounter is an echo server that knows by which of the agent's sockets each
// client's last message came. Messages begin with the client's address.
type flowCounter struct {
	mu    sync.Mutex
	flows map[string]int // port by client
}

func newFlowCounter(c *net.UDPConn) *flowCounter {
	f := &flowCounter{flows: map[string]int{}}
	go func() {
		buf := make([]byte, 1024)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			client, _, _ := strings.Cut(string(buf[:n]), " ")
			f.mu.Lock()
			f.flows[client] = int(from.Port())
			f.mu.Unlock()
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return f
}

func (f *flowCounter) of(client string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flows[client]
}

// E4: refusals at either end never end a listener or a flow.
func TestE4Refusals(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	joinNamespaces(t, b.guest, guestWire, newNamespace(t), hostWire)
	b.startAgent()
	b.startDaemon()
	const address = "127.0.0.1:7000"

	// Clients that do not wait for their answers: these find nobody.
	server, name := b.echo(socket.Spec{Network: "udp", Address: address})
	b.view.port(name, control.PortOpen)
	client := &asker{Conn: b.dial("udp", address)}
	for round := range 100 {
		hasty, err := dial(b.host, "udp", address)
		must(t, err)
		_, err = hasty.Write([]byte("?"))
		must(t, errors.Join(err, hasty.Close()))
		must(t, client.ask(fmt.Append(nil, "round ", round)))
	}
	if n := len(b.view.events(name)); n != 1 {
		t.Errorf("%d events of %s: %+v", n, name, b.view.events(name))
	}
	must(t, server.Close())
	b.view.gone(name)

	// A server that only takes what comes from a cable: the agent is refused.
	const wildcard = "0.0.0.0:7001"
	deaf, err := b.maker.Open(socket.Spec{Network: "udp", Address: wildcard, Device: guestWire.device, ReusePort: true})
	must(t, err)
	defer deaf.Close()
	b.view.port("udp "+wildcard, control.PortOpen)
	client = &asker{Conn: b.dial("udp", "127.0.0.1:7001")}
	for range 20 {
		_, err := client.Write([]byte("?"))
		must(t, err)
	}
	// The same client is served by one that does hear it.
	b.echo(socket.Spec{Network: "udp", Address: wildcard, ReusePort: true})
	wait.Eventually(t, patience, "the client is served", func() error { return client.ask([]byte("now?")) })
}

// E5: one socket for sending and receiving, as resolvers and game servers have
// it: the answers of others do not confuse it, and it serves on and on.
func TestE5OneSocket(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	upstream, _ := b.echo(socket.Spec{Network: "udp", Address: "127.0.0.1:7001"})
	resolver := bindUDP(t, b.maker, socket.Spec{Address: "0.0.0.0:7000"})
	go resolve(resolver, netip.MustParseAddrPort(upstream.Address))
	b.view.port("udp 0.0.0.0:7000", control.PortOpen)
	must(t, wait.Together(20, func(i int) error {
		c, err := dial(b.host, "udp", "127.0.0.1:7000")
		if err != nil {
			return err
		}
		defer c.Close()
		a := &asker{Conn: c}
		for round := range 50 {
			if err := a.ask(fmt.Appendf(nil, "client %d, question %d", i, round)); err != nil {
				return err
			}
		}
		return nil
	}))
}

// resolve asks upstream what it is asked, on the same socket, and passes the
// answer on.
func resolve(c *net.UDPConn, upstream netip.AddrPort) {
	asked := map[string]netip.AddrPort{}
	buf := make([]byte, 1024)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		to := upstream
		if from == upstream {
			to = asked[string(buf[:n])]
		} else {
			asked[string(buf[:n])] = from
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], to)
	}
}
