package acceptance

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// visit is a server on the host that gives its connections to the test.
type visit struct {
	b *bed
	l *net.TCPListener
}

func (b *bed) visit(address string) *visit {
	b.t.Helper()
	return &visit{b, listen(b.t, here{b.host}, socket.Spec{Address: address})}
}

// pair makes a connection from the guest and gives both ends. Nothing on it may
// take longer than the test's patience.
func (v *visit) pair() (client, server *net.TCPConn) {
	v.b.t.Helper()
	c, err := dial(v.b.guest, "tcp", v.l.Addr().String())
	must(v.b.t, err)
	must(v.b.t, v.l.SetDeadline(time.Now().Add(patience)))
	server, err = v.l.AcceptTCP()
	must(v.b.t, err)
	client = c.(*net.TCPConn)
	for _, c := range []*net.TCPConn{client, server} {
		v.b.t.Cleanup(func() { c.Close() })
		must(v.b.t, c.SetDeadline(time.Now().Add(patience)))
	}
	return client, server
}

// D1, in this direction: half-close either way with a late reply.
func TestF1HalfClose(t *testing.T) {
	onEveryTransport(t, func(t *testing.T, b *bed) {
		b.awaitHostReach(control.On)
		for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
			halfClose(t, b.visit(address).pair)
		}
	})
}

// D3, in this direction: RST travels as RST both ways, FIN as FIN.
func TestF1Reset(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
		resets(t, address, b.visit(address).pair)
	}
}

// D8, in this direction: 1 GiB each way, both at once, with equal checksums.
func TestF1Bulk(t *testing.T) {
	b := startReach(t, bedConfig{noRace: true})
	v := b.visit("127.0.0.1:7000")
	size := int64(1 << 30)
	if raceEnabled {
		size >>= 3 // the test program itself is slow
	}
	client, server := v.pair()
	started := time.Now()
	for _, c := range []*net.TCPConn{client, server} {
		must(t, c.SetDeadline(started.Add(4*patience)))
	}
	must(t, wait.Together(2, func(i int) error {
		return traffic.Exchange([]*net.TCPConn{client, server}[i], size)
	}))
	t.Logf("%d MiB each way took %v", size>>20, time.Since(started))
}

// D6, in this direction: connections one after another, more than there are
// ports to come from, and many at once. Descriptors and memory of agent and
// daemon return to what they were. It runs alone.
func TestF1ManyConnections(t *testing.T) {
	b := startReach(t, bedConfig{noRace: true})
	const address, lanes, each = "127.0.0.1:7000", 4, 3000
	must(t, b.guest.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 27999"), 0)
	}))
	b.hostEcho(socket.Spec{Network: "tcp", Address: address, Backlog: 4096})
	guest := *b
	guest.host = b.guest // where the clients are
	parts := []*process{b.agent, b.daemon}
	files := make([]int, len(parts))
	for i, p := range parts {
		files[i] = p.descriptors()
	}
	must(t, guest.manyAtOnce(address, 1000))
	memory := make([]int64, len(parts))
	for i, p := range parts {
		memory[i] = p.memory()
	}
	started := time.Now()
	must(t, wait.Together(lanes, func(int) error { return guest.oneAfterAnother(address, each) }))
	t.Logf("%d connections took %v", lanes*each, time.Since(started))
	must(t, guest.manyAtOnce(address, 1000))
	for i, p := range parts {
		wait.Eventually(t, patience, p.name+" has its descriptors back", func() error {
			if n := p.descriptors(); n > files[i]+8 {
				return fmt.Errorf("%d now, %d before", n, files[i])
			}
			return nil
		})
		if now := p.memory(); now > memory[i]+memory[i]/4+32<<20 {
			t.Errorf("%s uses %d MB, %d MB before", p.name, now>>20, memory[i]>>20)
		}
		if n := p.threads(); n > 100 {
			t.Errorf("%s has %d threads", p.name, n)
		}
	}
	wait.Eventually(t, patience, "no flow is left", func() error {
		s, err := b.status()
		if err == nil && s.Counts.ReachFlows != 0 {
			err = fmt.Errorf("%d are", s.Counts.ReachFlows)
		}
		return err
	})
}
