package acceptance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// limit changes a limit, as an editor does.
func (b *bed) limit(limits string) {
	b.t.Helper()
	b.write(b.settingsText("limits: {" + limits + "}"))
	b.awaitInForce()
}

// limits.listeners bounds what is taken note of: a lower limit closes nothing that
// is open, and what is beyond it is told of in the log and opens when its link
// comes up under a higher one.
func TestLimitListeners(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true, settings: "limits: {listeners: 5}"})
	serve := func(port int) { b.echo(socket.Spec{Network: "tcp", Address: hostPort("127.0.0.1", port)}) }
	for port := 7000; port < 7008; port++ {
		serve(port)
	}
	b.daemon.says("5 listeners")
	b.awaitCounts(5, 5)
	b.limit("listeners: 2")
	b.awaitCounts(5, 5)
	b.limit("listeners: 7")
	serve(7008)
	serve(7009)
	b.awaitCounts(7, 7)
	serve(7010)
	b.limit("listeners: 20")
	b.agent.kill()
	b.startAgent()
	b.awaitCounts(11, 11)
	for port := 7000; port <= 7010; port++ {
		must(t, try(b.host, "tcp", hostPort("127.0.0.1", port)))
	}
}

// limits.flows bounds the connections of each direction, now and for those that
// come; those that are open stay, and a place that becomes free can be taken.
func TestLimitFlows(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.awaitHostReach(control.On)
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.reach("tcp", "127.0.0.1:7000")
	b.hostEchoes("127.0.0.1:7100")
	must(t, try(b.guest, "tcp", "127.0.0.1:7100"))
	for _, d := range []struct {
		name    string
		from    *netns.Namespace
		address string
	}{{"to the guest", b.host, "127.0.0.1:7000"}, {"to the host", b.guest, "127.0.0.1:7100"}} {
		const most = 5
		b.limit(fmt.Sprintf("flows: %d", most))
		open := func() (net.Conn, error) {
			c, err := dial(d.from, "tcp", d.address)
			if err != nil {
				return nil, err
			}
			if err := hello(c); err != nil {
				c.Close()
				return nil, err
			}
			return c, nil
		}
		var conns []net.Conn
		for range most {
			wait.Eventually(t, patience, d.name+": a place", func() error { // one of before may yet be counted
				c, err := open()
				if err == nil {
					t.Cleanup(func() { c.Close() })
					conns = append(conns, c)
				}
				return err
			})
		}
		if c, err := open(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection beyond the limit gives %v, %v", d.name, c, err)
		}
		b.limit("flows: 2") // nobody is cut by that
		for _, c := range conns {
			must(t, hello(c))
		}
		if c, err := open(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection beyond the lower limit gives %v, %v", d.name, c, err)
		}
		b.limit(fmt.Sprintf("flows: %d", most+1))
		c, err := open()
		if err != nil {
			t.Fatalf("%s: with a higher limit: %v", d.name, err)
		}
		for _, c := range append(conns, c) {
			must(t, hello(c))
			must(t, c.Close())
		}
		wait.Eventually(t, patience, d.name+": the places are free", func() error {
			c, err := open()
			if err == nil {
				c.Close()
			}
			return err
		})
		b.limit("")
		for range most * 4 {
			c, err := open()
			must(t, err)
			t.Cleanup(func() { c.Close() })
		}
	}
}

// limits.udp_idle: a client that is silent for so long is forgotten, one that is
// not stays, and the forgotten one is served again as if it were new. It holds
// for conversations that began under another limit.
func TestLimitUDPIdle(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.awaitHostReach(control.On)
	b.echo(socket.Spec{Network: "udp", Address: "127.0.0.1:7000"})
	b.reach("udp", "127.0.0.1:7000")
	b.hostEchoes("127.0.0.1:7100")
	client := b.dial("udp", "127.0.0.1:7000")
	ask := &asker{Conn: client}
	guests, err := dial(b.guest, "udp", "127.0.0.1:7100")
	must(t, err)
	defer guests.Close()
	askHost := &asker{Conn: guests}
	counts := func(state string, want func(control.Counts) bool) {
		t.Helper()
		wait.Eventually(t, patience, "conversations are "+state, func() error {
			s, err := b.status()
			if err == nil && !want(s.Counts) {
				err = fmt.Errorf("%+v", s.Counts)
			}
			return err
		})
	}
	both := func(c control.Counts) bool { return c.Flows >= 1 && c.ReachFlows >= 1 }
	none := func(c control.Counts) bool { return c.Flows == 0 && c.ReachFlows == 0 }
	for i := range 3 {
		b.limit("udp_idle: 60s")
		must(t, ask.ask(fmt.Appendf(nil, "question %d\n", 2*i)))
		must(t, askHost.ask(fmt.Appendf(nil, "question %d\n", 2*i)))
		counts("there", both)
		b.limit("udp_idle: 1s")
		counts("forgotten", none)
		must(t, ask.ask(fmt.Appendf(nil, "question %d\n", 2*i+1)))
		must(t, askHost.ask(fmt.Appendf(nil, "question %d\n", 2*i+1)))
		counts("forgotten again", none)
	}
}
