package acceptance

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/echo"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// startReach makes a bed whose guest reaches the host's localhost.
func startReach(t *testing.T, config bedConfig) *bed {
	t.Helper()
	b := startBed(t, config)
	b.awaitHostReach(control.On)
	return b
}

// startReach starts the programs of a bed whose namespaces are prepared.
func (b *bed) startReach() {
	b.t.Helper()
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	b.awaitHostReach(control.On)
}

// awaitHostReach waits until host reach stands so, and gives the reason.
func (b *bed) awaitHostReach(state string) (reason string) {
	b.t.Helper()
	wait.Eventually(b.t, patience, "host reach is "+state, func() error {
		s, err := b.status()
		if err != nil {
			return err
		}
		reach := s.Links[0].HostReach
		if reach.State == "unavailable" && state == control.On {
			lacks := b.t.Fatalf
			if strings.Contains(reach.Reason, "the kernel has no") {
				lacks = b.t.Skipf
			}
			lacks("no host reach here: %s", reach.Reason)
		}
		if reach.State != state {
			return fmt.Errorf("it is %s: %s", reach.State, reach.Reason)
		}
		reason = reach.Reason
		return nil
	})
	return reason
}

// reached is what vmbridge ports --reach --json tells.
func (b *bed) reached() (ports []control.ReachedPort, err error) {
	b.t.Helper()
	out, err := b.vmbridge("ports", "--reach", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &ports)
	}
	return ports, err
}

// hostEcho serves on the host until the test ends or the server is closed.
func (b *bed) hostEcho(s socket.Spec) io.Closer {
	b.t.Helper()
	if s.Network == "udp" {
		c := bindUDP(b.t, here{b.host}, s)
		go echo.UDP(c)
		return c
	}
	l := listen(b.t, here{b.host}, s)
	go echo.TCP(l)
	return l
}

// hostEchoes serves TCP and UDP at addresses of the host.
func (b *bed) hostEchoes(addresses ...string) {
	b.t.Helper()
	for _, address := range addresses {
		for _, network := range []string{"tcp", "udp"} {
			b.hostEcho(socket.Spec{Network: network, Address: address, OnlyV6: true})
		}
	}
}

// greeter is a server that tells its name: TCP to who connects, and UDP in front
// of what it was asked.
type greeter struct {
	socket  io.Closer
	greeted atomic.Int64
}

// Close closes the socket for good. A process that is just being started by
// another test has a copy of it until it becomes another program, and the socket
// would go on taking what nobody reads.
func (g *greeter) Close() error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return g.socket.Close()
}

// greet serves at a place until the test ends or the server is closed.
func greet(t *testing.T, where place, s socket.Spec, name string) *greeter {
	t.Helper()
	g := &greeter{}
	if s.Network == "udp" {
		c := bindUDP(t, where, s)
		g.socket = c
		go g.answer(c, name)
		return g
	}
	l := listen(t, where, s)
	g.socket = l
	go g.accept(l, name)
	return g
}

func (g *greeter) accept(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		g.greeted.Add(1)
		_, _ = io.WriteString(c, name)
		c.Close()
	}
}

func (g *greeter) answer(c *net.UDPConn, name string) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		g.greeted.Add(1)
		_, _ = c.WriteToUDPAddrPort(append([]byte(name+" "), buf[:n]...), from)
	}
}

// who asks whoever answers at an address for the name.
func who(ns *netns.Namespace, network, address string) (string, error) {
	c, err := dial(ns, network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return "", err
	}
	if network == "tcp" {
		name, err := io.ReadAll(c)
		return string(name), err
	}
	if _, err := io.WriteString(c, "?"); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	name, _, _ := strings.Cut(string(buf[:n]), " ")
	return name, err
}

// F1: localhost in the guest is the host's, TCP and UDP, whichever family client
// and server use, and by every name that Linux has for it.
func TestF1Families(t *testing.T) {
	asBoth(t, func(t *testing.T, b *bed) {
		b.awaitHostReach(control.On)
		b.hostEchoes("127.0.0.1:7000", "[::1]:7001", "0.0.0.0:7002", "[::]:7003")
		for port := 7000; port <= 7003; port++ {
			for _, address := range localhosts {
				for _, network := range []string{"tcp", "udp"} {
					if err := try(b.guest, network, hostPort(address, port)); err != nil {
						t.Errorf("%s %s: %v", network, hostPort(address, port), err)
					}
				}
			}
		}
		if err := closed(b.guest, "tcp", "127.8.9.10:7002"); err != nil {
			t.Errorf("another address of the loopback is not localhost: %v", err)
		}
	})
}

// A8: in a guest that has no IPv6, IPv4 works, and status says what is lacking.
func TestF1WithoutIPv6(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	for _, where := range []string{"all", "default"} {
		must(t, b.guest.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/"+where+"/disable_ipv6", []byte("1"), 0)
		}))
	}
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	if reason := b.awaitHostReach(control.On); !strings.Contains(reason, "IPv6") {
		t.Errorf("the reason is %q", reason)
	}
	b.hostEchoes("127.0.0.1:7000", "[::1]:7001")
	for _, network := range []string{"tcp", "udp"} {
		must(t, try(b.guest, network, "127.0.0.1:7000"))
		must(t, try(b.guest, network, "127.0.0.1:7001"))
		must(t, closed(b.guest, network, "127.0.0.1:7002"))
	}
}

// F2: closed on both sides is refused, at once, and by connect itself: nothing
// is accepted and closed again. It measures, and runs alone.
func TestF2Refused(t *testing.T) {
	b := startReach(t, bedConfig{noRace: true})
	const count, limit = 200, 100 * time.Millisecond
	for _, c := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:7000"},
		{"tcp", "[::1]:7000"},
		{"udp", "127.0.0.1:7000"}, // a port unreachable
		{"udp", "[::1]:7000"},
	} {
		took := make([]time.Duration, count)
		for i := range took {
			started := time.Now()
			conn, err := dial(b.guest, c.network, c.address)
			if c.network == "udp" && err == nil {
				err = hello(conn)
				conn.Close()
			}
			took[i] = time.Since(started)
			if !refused(err) {
				t.Fatalf("%s %s: %v", c.network, c.address, err)
			}
		}
		slices.Sort(took)
		if p99 := took[count*99/100]; p99 > limit {
			t.Errorf("%s %s: refused within %v (p99), want %v", c.network, c.address, p99, limit)
		}
		t.Logf("%s %s: refused within %v (p50), %v (p99)", c.network, c.address, took[count/2], took[count*99/100])
	}
}
