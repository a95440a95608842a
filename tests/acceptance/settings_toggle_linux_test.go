package acceptance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// The ports of a toggle's test: 200 for TCP, the first of them for UDP as well.
const (
	toggleFirst    = 7000
	toggleTCPPorts = 200
	toggleUDPPorts = 20
)

// startToggle makes a bed with 200 TCP and 20 UDP ports.
func startToggle(t *testing.T, config bedConfig) *bed {
	t.Helper()
	b := startBed(t, config)
	b.spawn(b.guest, "server", exec.Command(built.server(t),
		"tcp4", "127.0.0.1", fmt.Sprint(toggleFirst), fmt.Sprint(toggleFirst+toggleTCPPorts-1),
		"udp4", "127.0.0.1", fmt.Sprint(toggleFirst), fmt.Sprint(toggleFirst+toggleUDPPorts-1)))
	b.awaitCounts(toggleTCPPorts+toggleUDPPorts, toggleTCPPorts+toggleUDPPorts)
	return b
}

// C4: the toggle goes off, with 1,000 TCP connections and 100 UDP conversations:
// every client hears of it, and every port can be bound, within 100 ms of the
// request; on again, all forwards are back within 500 ms. It measures, runs alone,
// and takes the median of five times.
func TestC4Toggle(t *testing.T) {
	b := startToggle(t, bedConfig{fromFile: true})
	offLimit, onLimit := 100*time.Millisecond, 500*time.Millisecond
	if raceEnabled {
		offLimit, onLimit = time.Second, 2*time.Second
	}
	client := control.NewClient(b.home)
	var offs, ons []time.Duration
	for range 5 {
		over := b.manyFlows(1000, 100)
		if s, err := b.status(); err != nil || s.Counts.Flows != 1100 {
			t.Fatalf("%d flows, %v", s.Counts.Flows, err)
		}
		started := time.Now()
		must(t, client.SetEnabled(t.Context(), false))
		answered := time.Since(started)
		must(t, b.host.Do(b.bindAll))
		free := time.Since(started)
		var last time.Duration
		for range 1000 {
			f := <-over
			if f.err == nil || errors.Is(f.err, os.ErrDeadlineExceeded) {
				t.Fatalf("a client has %v", f.err)
			}
			last = max(last, f.at.Sub(started))
		}
		offs = append(offs, max(last, free))
		if s, err := b.status(); err != nil || s.Counts.Flows != 0 || s.Counts.Open != 0 {
			t.Errorf("%+v is left, %v", s.Counts, err)
		}

		started = time.Now()
		must(t, client.SetEnabled(t.Context(), true))
		onAnswered := time.Since(started)
		wait.Eventually(t, patience, "all forwards are open", func() error {
			s, err := b.status()
			if err == nil && s.Counts.Open != toggleTCPPorts+toggleUDPPorts {
				err = fmt.Errorf("%+v", s.Counts)
			}
			return err
		})
		on := time.Since(started)
		ons = append(ons, on)
		t.Logf("off: answered after %v, ports free after %v, the last client after %v; on: answered after %v, all open after %v",
			answered, free, last, onAnswered, on)
	}
	slices.Sort(offs)
	slices.Sort(ons)
	if offs[2] > offLimit || ons[2] > onLimit {
		t.Errorf("off within %v, want %v; on within %v, want %v", offs, offLimit, ons, onLimit)
	}
	for i := range toggleTCPPorts {
		must(t, try(b.host, "tcp", hostPort("127.0.0.1", toggleFirst+i)))
	}
	for i := range toggleUDPPorts {
		must(t, try(b.host, "udp", hostPort("127.0.0.1", toggleFirst+i)))
	}
}

// over is how and when a connection ended.
type over struct {
	at  time.Time
	err error
}

// manyFlows has connections and conversations to all ports by turns. What the
// connections end with comes from the channel.
func (b *bed) manyFlows(tcp, udp int) <-chan over {
	b.t.Helper()
	ended := make(chan over, tcp)
	var conns []net.Conn
	must(b.t, b.host.Do(func() error {
		for i := range tcp + udp {
			network, ports := "tcp", toggleTCPPorts
			if i >= tcp {
				network, ports = "udp", toggleUDPPorts
			}
			c, err := net.Dial(network, hostPort("127.0.0.1", toggleFirst+i%ports))
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	}))
	must(b.t, wait.Together(8, func(lane int) error {
		for i := lane; i < len(conns); i += 8 {
			if err := hello(conns[i]); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, c := range conns[:tcp] {
		must(b.t, c.SetDeadline(time.Now().Add(patience)))
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- over{time.Now(), err}
		}()
	}
	b.t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	return ended
}

// bindAll binds every port of the toggle's test on this thread's host, and lets
// go of it.
func (b *bed) bindAll() error {
	for i := range toggleTCPPorts + toggleUDPPorts {
		s := socket.Spec{Network: "tcp", Address: hostPort("127.0.0.1", toggleFirst+i)}
		if i >= toggleTCPPorts {
			s = socket.Spec{Network: "udp", Address: hostPort("127.0.0.1", toggleFirst+i-toggleTCPPorts)}
		}
		f, err := s.Open()
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// G1: on and off are kept over restarts, and what --enable says is for one run.
func TestG1Kept(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	b.spawnServer("7000")
	b.servesBoth("7000")
	restart := func(state string, flags ...string) {
		t.Helper()
		b.daemon.terminate()
		b.config.flags = flags
		b.startDaemon()
		b.awaitLink()
		b.awaitNetworking(patience, state)
	}
	b.exits(0, "host networking is off", "disable")
	restart(control.Off)
	b.unreachable("tcp", "127.0.0.1:7000")
	restart(control.On, "--enable")
	b.servesBoth("7000")
	restart(control.Off)
	b.exits(0, "host networking is on", "enable")
	restart(control.On)
	b.servesBoth("7000")
	b.daemon.terminate()
	b.exits(0, "no daemon is running", "disable")
	b.startDaemon()
	b.awaitNetworking(patience, control.Off)
	b.exits(0, "host networking is on", "enable")
	b.servesBoth("7000")
}

// C4: off and on in a row, with connections each time, leaves nothing behind:
// neither descriptors nor goroutines.
func TestC4OffAndOn(t *testing.T) {
	t.Parallel()
	b := startToggle(t, bedConfig{fromFile: true})
	client := control.NewClient(b.home)
	cycle := func() {
		flows := b.manyFlows(20, 5)
		must(t, client.SetEnabled(t.Context(), false))
		for range 20 {
			if f := <-flows; f.err == nil || errors.Is(f.err, os.ErrDeadlineExceeded) {
				t.Fatalf("a client has %v", f.err)
			}
		}
		must(t, b.host.Do(b.bindAll))
		must(t, client.SetEnabled(t.Context(), true))
		b.awaitCounts(toggleTCPPorts+toggleUDPPorts, toggleTCPPorts+toggleUDPPorts)
	}
	cycle()
	before := b.daemon.descriptors()
	for range 50 {
		cycle()
	}
	wait.Eventually(t, patience, "the daemon has its descriptors back", func() error {
		if n := b.daemon.descriptors(); n > before+4 {
			return fmt.Errorf("%d now, %d before", n, before)
		}
		return nil
	})
	many := b.goroutines()
	b.startDaemon()
	b.awaitCounts(toggleTCPPorts+toggleUDPPorts, toggleTCPPorts+toggleUDPPorts)
	cycle()
	if one := b.goroutines(); many > one+20 {
		t.Errorf("%d goroutines after 51 times, %d after one", many, one)
	} else {
		t.Logf("%d descriptors; %d goroutines after 51 times, %d after one", before, many, one)
	}
}

// goroutines ends the daemon, which tells of all its goroutines.
func (b *bed) goroutines() int {
	b.t.Helper()
	b.daemon.quits = true
	b.daemon.end(syscall.SIGQUIT)
	return strings.Count(b.daemon.output(), "\ngoroutine ")
}
