package acceptance

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// C1: a server, or the agent, is killed: the host's ports can be bound again
// within 2 s, TCP and UDP, both families.
func TestC1Killed(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	server := b.spawnServer("7000")
	b.servesBoth("7000")
	server.kill()
	b.released(time.Now(), "7000")

	b.spawnServer("7000")
	b.servesBoth("7000")
	b.agent.kill()
	b.released(time.Now(), "7000")
}

// spawnServer starts an echo server in the guest, TCP and UDP, both families.
func (b *bed) spawnServer(port string) *process {
	b.t.Helper()
	return b.spawn(b.guest, "server", serverCommand(b.t, port))
}

// C3: the listener closes while accepted connections live: they live on, new
// ones are refused.
func TestC3LivingConnections(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	server, name := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.view.port(name, control.PortOpen)
	c := b.connect("127.0.0.1:7000")
	must(t, exchange(c, []byte("before\n")))
	must(t, server.Close())
	b.unreachable("tcp", "127.0.0.1:7000")
	b.view.gone(name)
	must(t, exchange(c, []byte("after\n")))
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
}

// C4: the daemon ends, or host networking is turned off: everything is released
// at once, flows too.
func TestC4Release(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	b.spawnServer("7000")
	b.servesBoth("7000")
	for _, c := range []struct {
		name  string
		end   func()
		again func()
	}{
		{
			"disable",
			func() { _, err := b.vmbridge("disable"); must(t, err) },
			func() { _, err := b.vmbridge("enable"); must(t, err) },
		},
		{"daemon", func() { b.daemon.terminate() }, b.startDaemon},
	} {
		flow := b.connect("127.0.0.1:7000")
		must(t, exchange(flow, []byte("before\n")))
		c.end()
		for _, network := range []string{"tcp", "udp"} {
			for _, address := range []string{"0.0.0.0:7000", "[::]:7000"} {
				s := socket.Spec{Network: network, Address: address, OnlyV6: true}
				if err := b.bindOnHost(s); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		}
		must(t, flow.SetReadDeadline(time.Now().Add(answerTime)))
		if _, err := flow.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a flow gives %v", c.name, err)
		}
		c.again()
		b.servesBoth("7000")
	}
}

// C5: stop and start the same port 100 times fast: it is never in use, and is
// reached each time. Connections of the times before are still open.
func TestC5Restarts(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	for _, network := range []string{"tcp", "udp"} {
		name := network + " 127.0.0.1:7000"
		for range 100 {
			server, _ := b.echo(socket.Spec{Network: network, Address: "127.0.0.1:7000"})
			// The forward of the time before may still be there, and go.
			wait.Eventually(t, patience, name+" answers", func() error {
				c, err := dial(b.host, network, "127.0.0.1:7000")
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				return hello(c)
			})
			must(t, server.Close())
		}
		b.view.gone(name)
		for _, e := range b.view.events(name) {
			if e.Port.State != control.PortOpen {
				t.Errorf("%s was %s: %s", name, e.Port.State, e.Port.Reason)
			}
		}
	}
}

// G3: the agent or the daemon is killed: full service again within 5 s of its
// return, nothing twice, nothing stale.
func TestG3Killed(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	b.spawnServer("7000")
	b.servesBoth("7000")
	for _, c := range []struct {
		victim *process
		again  func()
	}{
		{b.agent, b.startAgent},
		{b.daemon, b.startDaemon},
	} {
		stale, staleName := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7001"})
		b.view.port(staleName, control.PortOpen)
		must(t, c.victim.cmd.Process.Signal(syscall.SIGKILL))
		<-c.victim.done
		must(t, stale.Close()) // behind their backs
		back := time.Now()
		c.again()
		for _, network := range []string{"tcp", "udp"} {
			for _, address := range []string{"127.0.0.1:7000", "[::1]:7000"} {
				err := wait.Try(5*time.Second-time.Since(back), func() error { return try(b.host, network, address) })
				if err != nil {
					t.Errorf("%s: %s %s after %v: %v", c.victim.name, network, address, time.Since(back), err)
				}
			}
		}
		b.awaitCounts(2, 2)
		b.unreachable("tcp", "127.0.0.1:7001")
	}
}
