package acceptance

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
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
	return errors.Join(err, together(n, func(i int) error {
		a := &asker{Conn: clients[i]}
		for round := range 3 {
			if err := a.ask(fmt.Appendf(nil, "client %d, round %d", i, round)); err != nil {
				return fmt.Errorf("client %d, round %d: %w", i, round, err)
			}
		}
		return nil
	}))
}
