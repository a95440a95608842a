package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/carry"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/linkpair"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// echoGuest answers every stream and datagram with what it is sent, and counts the
// streams that it has.
type echoGuest struct {
	linkpair.Nobody
	work sync.WaitGroup

	mu    sync.Mutex
	alive int
}

func (g *echoGuest) Stream(s *link.Stream) {
	ours, theirs := net.Pipe()
	g.count(1)
	g.work.Go(func() {
		defer g.count(-1)
		defer ours.Close()
		_, _ = io.Copy(ours, ours)
	})
	s.Accept(pipeSocket{theirs})
}

func (g *echoGuest) count(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive += n
	return g.alive
}

// pipeSocket cannot be closed by halves: whoever asks for it wants no more.
type pipeSocket struct{ net.Conn }

func (p pipeSocket) CloseWrite() error { return p.Close() }

func (g *echoGuest) Datagrams(f *link.DatagramFlow) {
	var echo link.DatagramBatch
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			echo.Add(f, p)
		}
		echo.Send()
	}, func(wire.Code) {})
}

// liveRig is an engine on the real system whose link a leads to a guest that
// echoes, over a real link.
func liveRig(t *testing.T, change func(*Config)) (*rig, *echoGuest) {
	t.Helper()
	guest := &echoGuest{}
	pair := linkpair.New(t, linkpair.Nobody{}, guest, 2)
	carrier := carry.New(association.Limits{})
	carrier.SetSession(pair.Host)
	r := realRig(t, change)
	r.SetLink("a", carrier)
	t.Cleanup(func() {
		r.Close()
		carrier.Close()
		pair.Close()
		guest.work.Wait()
	})
	return r, guest
}

// client is a connection, or a UDP socket, whose answers are its own words.
type client struct{ net.Conn }

func dial(t *testing.T, network, at string) client {
	t.Helper()
	c, err := net.DialTimeout(network, at, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := (client{c}).ask(); err != nil {
		t.Fatalf("%s %s: %v", network, at, err)
	}
	return client{c}
}

func (c client) ask() error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// alive fails the test when a client gets no answer any more.
func alive(t *testing.T, when string, clients ...client) {
	t.Helper()
	for _, c := range clients {
		if err := c.ask(); err != nil {
			t.Errorf("%s: %s %s: %v", when, c.RemoteAddr().Network(), c.RemoteAddr(), err)
		}
	}
}

// cut fails the test when a connection is not reset.
func cut(t *testing.T, when string, clients ...client) {
	t.Helper()
	for _, c := range clients {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %s sees %v, want a reset", when, c.RemoteAddr(), err)
		}
	}
}

// counted waits until every forward of a port has one flow that has carried
// something: bytes are counted after they are sent.
func (r *rig) counted(t *testing.T, port uint16) {
	t.Helper()
	wait.Until(t, 5*time.Second, "flows to be counted", func() bool {
		return !slices.ContainsFunc(r.ForwardsOf(port), func(f Forward) bool { return f.Flows != 1 || f.BytesIn == 0 })
	})
}

// TestPolicyAndFlows: a policy ends the flows of what it closes and of nothing
// else; a listener that closes in the guest leaves its connections (C3, C4).
func TestPolicyAndFlows(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r, guest := liveRig(t, twin)
	r.add("a", "tcp 127.0.0.1:8000", "udp 127.0.0.1:8000", "tcp 127.0.0.1:8001", "udp 127.0.0.1:8001", "tcp [::]:8002 dual")
	tcp, udp := dial(t, "tcp", "127.0.0.1:8000"), dial(t, "udp", "127.0.0.1:8000")
	same := func(when string) {
		t.Helper()
		alive(t, when, tcp, udp)
		r.counted(t, 8000)
	}
	same("before")
	base := Policy{LocalhostTwin: true}
	for _, c := range []struct {
		name   string
		policy Policy
	}{
		{"denied", Policy{LocalhostTwin: true, DenyPorts: ports("8001")}},
		{"not allowed", Policy{LocalhostTwin: true, AllowPorts: ports("8000 8002")}},
		{"ignored", Policy{LocalhostTwin: true, IgnorePorts: ports("8001")}},
		{"ignored by a rule", Policy{LocalhostTwin: true, Rules: []Rule{{First: 8001, Last: 8001, Ignore: true}}}},
		{"at another port", Policy{LocalhostTwin: true, Rules: []Rule{{First: 8001, Last: 8001, HostPort: 9001}}}},
		{"at another address", Policy{LocalhostTwin: true, Rules: []Rule{{First: 8001, Last: 8001, HostAddress: netip.MustParseAddr("127.0.0.7")}}}},
	} {
		r.set(base)
		other, otherUDP := dial(t, "tcp", "127.0.0.1:8001"), dial(t, "udp", "127.0.0.1:8001")
		r.counted(t, 8001)
		r.set(c.policy)
		cut(t, c.name, other)
		for _, f := range r.ForwardsOf(8001) {
			if f.Flows != 0 || f.BytesIn == 0 {
				t.Errorf("%s: %s has %d flows, %d bytes", c.name, f.Key(), f.Flows, f.BytesIn)
			}
		}
		if err := otherUDP.ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: the UDP client sees %v", c.name, err)
		}
		if _, err := net.Dial("tcp", "127.0.0.1:8001"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a newcomer sees %v", c.name, err)
		}
		same(c.name)
	}
	// The rules lead there.
	r.set(Policy{LocalhostTwin: true, Rules: []Rule{{First: 8001, Last: 8001, HostPort: 9001, HostAddress: netip.MustParseAddr("127.0.0.7")}}})
	dial(t, "tcp", "127.0.0.7:9001")
	dial(t, "udp", "127.0.0.7:9001")

	// Of one listener, only the addresses that go lose their flows.
	r.set(base)
	v4, v6, alias := dial(t, "tcp", "127.0.0.1:8002"), dial(t, "tcp", "[::1]:8002"), dial(t, "tcp", "[::1]:8000")
	r.set(Policy{Rules: []Rule{{First: 8002, Last: 8002, HostAddress: wildcard6}}})
	cut(t, "one family", v4)
	cut(t, "no twin", alias)
	alive(t, "one family", v6)
	same("no twin")

	r.remove("a", "tcp 127.0.0.1:8000")
	alive(t, "the listener is closed", tcp)
	if _, err := net.Dial("tcp", "127.0.0.1:8000"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a newcomer sees %v", err)
	}
	r.Enable(false)
	cut(t, "off", v6)
	if _, err := net.Dial("tcp", "[::1]:8002"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("off: %v", err)
	}
	alive(t, "off", tcp) // it is nobody's forward; the owner of the session cuts it
	tcp.Close()
	wait.Until(t, 5*time.Second, "the guest's ends to go", func() bool { return guest.count(0) == 0 })
}

// TestWiderByRule: a client of another address reaches the one that the guest
// listens on, where that is not all of them.
func TestWiderByRule(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r := realRig(t, rules(Rule{HostAddress: wildcard4, First: 8000, Last: 8001, HostPort: 9000}))
	r.add("a", "tcp 127.0.0.1:8000", "tcp 0.0.0.0:8001", "udp 127.0.0.1:8000")
	for at, want := range map[string]string{
		"tcp 127.0.0.2:9000": "a 127.0.0.1:8000", "tcp 127.0.0.2:9001": "a 127.0.0.2:8001", "udp 127.0.0.1:9000": "a 127.0.0.1:8000",
		"tcp 127.0.0.1:8000": "refused", "udp 127.0.0.1:8000": "refused",
	} {
		s := parseSlot(at)
		if got := ask(string(s.protocol), s.at.String()); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}

// TestOwnerEndsFlows: what a late name of the owner closes ends its flows as well.
func TestOwnerEndsFlows(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r, _ := liveRig(t, func(c *Config) { c.Policy.IgnoreProcesses = []string{"sshd"} })
	r.add("a", "tcp 127.0.0.1:8000")
	c := dial(t, "tcp", "127.0.0.1:8000")
	l := listener("tcp 127.0.0.1:8000")
	l.Owner.Process = "sshd"
	r.ListenersChanged("a", message.Listeners{Add: []message.Listener{l}})
	cut(t, "ignored", c)
}

// TestThousandFlows: a policy ends 1,000 live flows within 100 ms, also while
// clients keep coming, and none gets through (C4).
func TestThousandFlows(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	const flows = 1000
	r, guest := liveRig(t, nil)
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("tcp 127.0.0.1:%d", 8000+i))
	}
	r.add("a", append(all, "tcp 127.0.0.1:9000")...)
	spared := dial(t, "tcp", "127.0.0.1:9000")
	clients := make([]client, flows)
	for i := range clients {
		clients[i] = dial(t, "tcp", fmt.Sprintf("127.0.0.1:%d", 8000+i%10))
	}
	stop := make(chan struct{})
	var coming sync.WaitGroup
	for i := range 4 {
		coming.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 8000+i))
				if err == nil {
					defer c.Close()
				}
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
			}
		})
	}
	// The newcomers are on their way when the policy comes.
	wait.Until(t, 20*time.Second, "newcomers", func() bool { return guest.count(0) > flows+20 })
	var counted []*link.Stats
	for _, l := range all {
		counted = append(counted, r.stats(l))
	}
	start, cpu := time.Now(), cpuTime(t)
	r.set(Policy{DenyPorts: ports("8000-8009")})
	took, used := time.Since(start), cpuTime(t)-cpu
	cut(t, "denied", clients...)
	t.Logf("%d flows and newcomers cut in %v, %v of CPU, the last client saw it after %v", flows, took, used, time.Since(start))
	if used > 100*time.Millisecond*time.Duration(runtime.NumCPU()) && !raceDetector {
		t.Errorf("cutting took %v of CPU", used)
	}
	close(stop)
	coming.Wait()
	for i, s := range counted {
		if n := s.Flows.Load(); n != 0 {
			t.Errorf("%s: %d flows are left", all[i], n)
		}
	}
	wait.Until(t, 20*time.Second, "the guest's ends to go", func() bool { return guest.count(0) == 1 })
	alive(t, "denied", spared)
	if lines := r.lines(logrus.ErrorLevel); len(lines) > 0 {
		t.Errorf("log: %v", lines)
	}
}
