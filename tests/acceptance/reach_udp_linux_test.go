package acceptance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
)

// udpClient is a socket of the guest that is not connected.
type udpClient struct {
	*net.UDPConn
	to netip.AddrPort
}

// guestClient makes such a socket.
func (b *bed) guestClient(network, to string) *udpClient {
	b.t.Helper()
	var c *net.UDPConn
	must(b.t, b.guest.Do(func() (err error) {
		c, err = net.ListenUDP(network, nil)
		return err
	}))
	b.t.Cleanup(func() { c.Close() })
	return &udpClient{c, netip.MustParseAddrPort(to)}
}

// expect asks a greeter at a port of the client's destination, and checks who
// answers and from where. It asks again when no answer comes.
func (c *udpClient) expect(port uint16, question, name string) error {
	to := netip.AddrPortFrom(c.to.Addr(), port)
	from := to
	if to.Addr().IsUnspecified() {
		from = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		if to.Addr().Is6() {
			from = netip.AddrPortFrom(netip.IPv6Loopback(), port)
		}
	}
	const attempts = 8
	want := name + " " + question
	buf := make([]byte, 2048)
	for range attempts {
		if _, err := c.WriteToUDPAddrPort([]byte(question), to); err != nil {
			return fmt.Errorf("to %s: %w", to, err)
		}
		if err := c.SetReadDeadline(time.Now().Add(answerTime / attempts)); err != nil {
			return err
		}
		for {
			n, at, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("to %s: %w", to, err)
			}
			at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
			got := string(buf[:n])
			if !strings.HasSuffix(got, " "+question) {
				continue // the late answer to a question that was asked again
			}
			if got != want || at != from {
				return fmt.Errorf("asked %s, got %q from %s, want %q from %s", to, got, at, want, from)
			}
			return nil
		}
	}
	return fmt.Errorf("no answer from %s to %q: %w", to, question, os.ErrDeadlineExceeded)
}

func mustPort(address string) uint16 { return netip.MustParseAddrPort(address).Port() }

// The trap that ruins UDP in other products: a guest's server answers a client of
// the host through a socket of the agent, on the loopback. No answer may be taken
// for a call to the host, whose clients ask at several of its addresses.
func TestF1ServersAnswers(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	joinNamespaces(t, b.host, hostWire, newNamespace(t), guestWire)
	b.startReach()
	const clients = 100
	for i, c := range []struct {
		bind string
		at   []string
	}{
		{"127.0.0.1", []string{"127.0.0.1"}},
		{"0.0.0.0", []string{"127.0.0.1", "127.8.9.10", hostWire.v4.String()}},
		{"[::1]", []string{"::1"}},
		{"[::]", []string{"127.0.0.1", hostWire.v4.String(), "::1", hostWire.v6.String()}},
	} {
		port := 7000 + i
		_, name := b.echo(socket.Spec{Network: "udp", Address: fmt.Sprintf("%s:%d", c.bind, port)})
		b.view.port(name, "open")
		for _, address := range c.at {
			testDatagramClients(t, b, clients, hostPort(address, port))
		}
	}
	reached, err := b.reached()
	must(t, err)
	if len(reached) != 0 {
		t.Errorf("answers went to the host: %+v", reached)
	}
}

// F8: one socket that is not connected talks to two servers of the host and one
// of the guest, in turn, each of which answers from where it was asked.
func TestF8OneSocketManyServers(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	const hostA, hostB, guestC = 7000, 7001, 7002
	for port, name := range map[int]string{hostA: "a", hostB: "b", guestC: "wrong"} {
		greet(t, here{b.host}, socket.Spec{Network: "udp", Address: fmt.Sprintf("[::]:%d", port)}, name)
	}
	greet(t, here{b.guest}, socket.Spec{Network: "udp", Address: fmt.Sprintf("[::]:%d", guestC)}, "c")
	for _, c := range []struct{ network, to string }{
		{"udp4", "127.0.0.1"}, {"udp4", "0.0.0.0"},
		{"udp6", "::1"},
		{"udp", "127.0.0.1"}, {"udp", "::1"}, // a socket of IPv6: 127.0.0.1 is mapped
	} {
		client := b.guestClient(c.network, hostPort(c.to, 1))
		for round := range 20 {
			for port, name := range map[uint16]string{hostA: "a", hostB: "b", guestC: "c"} {
				if err := client.expect(port, fmt.Sprintf("%s %d", name, round), name); err != nil {
					t.Fatalf("%s: %v", c.network, err)
				}
			}
		}
	}
}

// F1, E2: datagrams of every size keep their boundaries, and many clients get
// their own answers.
func TestF1Datagrams(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
		c, err := dial(b.guest, "udp", address)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		a := &asker{Conn: c}
		for _, size := range []int{0, 1, 1472, 1473, 9000, 32768, 32769, 65507} {
			if err := a.ask(traffic.Noise(size)); err != nil {
				t.Errorf("%s: %d bytes: %v", address, size, err)
			}
		}
		must(t, datagramClients(b.guest, 100, address))
	}
}
