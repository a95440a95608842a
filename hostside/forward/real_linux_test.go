package forward

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// answerer stands for a link and its guest: a TCP client gets the guest address
// that it was carried to and then its own bytes back, a UDP client the guest
// address before its datagram.
type answerer struct {
	name string
	wg   sync.WaitGroup
}

func (a *answerer) CarryTCP(conn *net.TCPConn, guest netip.AddrPort, stats *link.Stats) {
	stats.Flows.Add(1)
	a.wg.Go(func() {
		defer stats.Flows.Add(-1)
		defer conn.Close()
		fmt.Fprintf(conn, "%s %s\n", a.name, guest)
		_, _ = io.Copy(conn, conn)
	})
}

func (a *answerer) CarryUDP(conn *net.UDPConn, guest netip.AddrPort, keep func(netip.Addr) bool, _ *link.Stats) error {
	a.wg.Add(1)
	defer a.wg.Done()
	defer conn.Close()
	buf := make([]byte, 2048)
	for {
		n, peer, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if keep == nil || keep(peer.Addr()) {
			_, _ = conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s %s", a.name, guest, buf[:n]), peer)
		}
	}
}

func (a *answerer) CutRetired() {}

// realRig is an engine on the real system, with links a and b.
func realRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	cfg := Config{Enabled: true, Log: logger}
	if change != nil {
		change(&cfg)
	}
	e := New(cfg)
	a, b := &answerer{name: "a"}, &answerer{name: "b"}
	t.Cleanup(func() {
		e.Close()
		a.wg.Wait()
		b.wg.Wait()
	})
	e.SetLink("a", a)
	e.SetLink("b", b)
	return &rig{Engine: e, log: hook}
}

// dialTCP returns a connection and what the other side said it is.
func dialTCP(at string) (net.Conn, string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return nil, "", err
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(io.LimitReader(c, 100)).ReadString('\n')
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, strings.TrimSpace(line), nil
}

// ask is the answer at an address, or "refused", or an error's text.
func ask(protocol, at string) string {
	var answer string
	var err error
	if protocol == "tcp" {
		var c net.Conn
		if c, answer, err = dialTCP(at); err == nil {
			c.Close()
		}
	} else {
		answer, err = askUDP(at)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refused"
	}
	if err != nil {
		return err.Error()
	}
	return answer
}

func askUDP(at string) (string, error) {
	c, err := net.Dial("udp", at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return strings.TrimSuffix(string(buf[:n]), " x"), err
}

// TestReach: every kind of listener answers on its families and its scope, and
// nowhere else (A1, A9, C4).
func TestReach(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r := realRig(t, nil)
	const lan4, lan6 = "192.0.2.1", "2001:db8::1"
	for _, a := range []string{lan4 + "/32", lan6 + "/128"} {
		if out, err := exec.Command("ip", "addr", "add", a, "dev", "lo", "nodad").CombinedOutput(); err != nil {
			if out2, err := exec.Command("ip", "addr", "add", a, "dev", "lo").CombinedOutput(); err != nil {
				t.Skipf("ip addr add: %v %s %s", err, out, out2)
			}
		}
	}
	wait.Until(t, 5*time.Second, "the new addresses work", func() bool { return ask("tcp", "["+lan6+"]:8000") == "refused" })
	clients := []string{"127.0.0.1", "127.0.0.2", lan4, "[::1]", "[" + lan6 + "]"}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, c := range []struct {
			listener string
			want     []string // by client
		}{
			{"127.0.0.1:8000", []string{"a 127.0.0.1:8000", "refused", "refused", "refused", "refused"}},
			{"127.0.0.2:8000", []string{"refused", "a 127.0.0.2:8000", "refused", "refused", "refused"}},
			{"0.0.0.0:8000", []string{"a 127.0.0.1:8000", "a 127.0.0.2:8000", "a 127.0.0.1:8000", "refused", "refused"}},
			{"[::1]:8000", []string{"refused", "refused", "refused", "a [::1]:8000", "refused"}},
			{"[::]:8000", []string{"refused", "refused", "refused", "a [::1]:8000", "a [::1]:8000"}},
			{"[::]:8000 dual", []string{"a 127.0.0.1:8000", "a 127.0.0.2:8000", "a 127.0.0.1:8000", "a [::1]:8000", "a [::1]:8000"}},
			{lan4 + ":8000", []string{"refused", "refused", "a " + lan4 + ":8000", "refused", "refused"}},
			{"203.0.113.9:8000", []string{"refused", "refused", "refused", "refused", "refused"}},
		} {
			// Each follows the one before in one report: a change of address.
			m := message.Listeners{Reset: true, Add: []message.Listener{listener(protocol + " " + c.listener)}}
			r.ListenersChanged("a", m)
			for i, client := range clients {
				if protocol == "udp" && client == "127.0.0.2" && c.want[i] != "refused" && !strings.HasPrefix(c.listener, "127.") {
					continue // the answerer does not reply from the address asked
				}
				if got := ask(protocol, client+":8000"); got != c.want[i] {
					t.Errorf("%s %s, client of %s: %q, want %q", protocol, c.listener, client, got, c.want[i])
				}
			}
			for _, f := range r.ForwardsOf(8000) {
				if want := f.Guest.Address == netip.MustParseAddr("203.0.113.9"); (f.State == Ignored) != want || !want && f.State != Open {
					t.Errorf("%v is %s: %s", f.Key(), f.State, f.Reason)
				}
			}
		}
	}
	r.add("a", "tcp [::]:8000 dual", "udp [::]:8000 dual")
	r.Enable(false)
	for _, protocol := range []string{"tcp", "udp"} {
		for _, client := range clients {
			if got := ask(protocol, client+":8000"); got != "refused" {
				t.Errorf("off: %s %s: %q", protocol, client, got)
			}
		}
	}
}

// TestRelease: accepted connections outlive the listener, newcomers are refused
// (C3); links share and hand over a port (B5); the same port comes and goes 100
// times (C5).
func TestRelease(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r := realRig(t, nil)
	r.add("a", "tcp 0.0.0.0:8000")
	conn, _, err := dialTCP("127.0.0.1:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.add("b", "tcp 127.0.0.1:8000")
	if got := r.ForwardsOf(8000)[1]; got.State != Conflict || got.Reason != `tcp 0.0.0.0:8000 is in use by link "a"` {
		t.Errorf("%+v", got)
	}
	r.LinkDown("a")
	if got := ask("tcp", "127.0.0.1:8000"); got != "b 127.0.0.1:8000" {
		t.Errorf("after the first link: %q", got)
	}
	r.remove("b", "tcp 127.0.0.1:8000")
	if got := ask("tcp", "127.0.0.1:8000"); got != "refused" {
		t.Errorf("newcomer: %q", got)
	}
	if _, err := fmt.Fprintln(conn, "still here"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "still here\n" {
		t.Errorf("the connection of before: %q, %v", line, err)
	}
	var conns []net.Conn
	for i := range 100 {
		r.add("b", "tcp [::]:8000 dual", "udp [::]:8000 dual")
		for _, f := range r.ForwardsOf(8000) {
			if f.State != Open {
				t.Fatalf("round %d: %v is %s: %s", i, f.Key(), f.State, f.Reason)
			}
		}
		c, who, err := dialTCP("127.0.0.1:8000")
		if err != nil || who != "b 127.0.0.1:8000" {
			t.Fatalf("round %d: %q, %v", i, who, err)
		}
		conns = append(conns, c)
		r.remove("b", "tcp [::]:8000 dual", "udp [::]:8000 dual")
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestBetweenSessions: without a carrier the ports stay ours; TCP newcomers are
// reset, UDP works again with the next carrier.
func TestBetweenSessions(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r := realRig(t, nil)
	r.add("a", "tcp 127.0.0.1:8000", "udp 127.0.0.1:8000")
	r.SetLink("a", nil)
	if _, _, err := dialTCP("127.0.0.1:8000"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a carrier: %v, want a reset", err)
	}
	if _, err := net.ListenPacket("udp", "127.0.0.1:8000"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("without a carrier the UDP port is free: %v", err)
	}
	next := &answerer{name: "next"}
	r.SetLink("a", next)
	for _, protocol := range []string{"tcp", "udp"} {
		if got := ask(protocol, "127.0.0.1:8000"); got != "next 127.0.0.1:8000" {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}

// breaker is a carrier whose UDP service ends at once, the given number of
// times.
type breaker struct {
	answerer
	mu     sync.Mutex
	breaks int
}

func (b *breaker) CarryUDP(conn *net.UDPConn, guest netip.AddrPort, keep func(netip.Addr) bool, stats *link.Stats) error {
	b.mu.Lock()
	b.breaks--
	broken := b.breaks >= 0
	b.mu.Unlock()
	if broken {
		conn.Close()
		return errors.New("broken")
	}
	return b.answerer.CarryUDP(conn, guest, keep, stats)
}

// TestCarrierEnds: a UDP socket that its carrier gives up is a failure with the
// reason, and opens again.
func TestCarrierEnds(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	r := realRig(t, nil)
	c := &breaker{answerer: answerer{name: "a"}, breaks: 1}
	r.SetLink("a", c)
	r.add("a", "udp 127.0.0.1:8000")
	wait.Until(t, 2*time.Second, "the failure is reported", func() bool {
		return slices.Contains(r.lines(logrus.WarnLevel), "forward failed: the link stopped serving the socket: broken")
	})
	wait.Until(t, 2*time.Second, "it is open again", func() bool { return r.ForwardsOf(8000)[0].State == Open })
	if got := ask("udp", "127.0.0.1:8000"); got != "a 127.0.0.1:8000" {
		t.Errorf("%q", got)
	}
}

// TestOutOfDescriptors: what does not fit says so and opens later; the rest
// works.
func TestOutOfDescriptors(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	limit := syscall.Rlimit{Cur: 200, Max: 200}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, reason string
		max          int
	}{
		{"our limit", "too many open sockets: the limit is 180 of 200 descriptors (ulimit -n)", 0},
		{"the system's", "too many open files: the limit is 200 (ulimit -n)", 1000},
	} {
		r := realRig(t, func(cfg *Config) { cfg.MaxSockets = c.max })
		var all []string
		for port := range 250 {
			all = append(all, fmt.Sprintf("tcp 127.0.0.1:%d", 8000+port))
		}
		r.add("a", all...)
		open, reason := 0, ""
		r.mu.Lock()
		for _, f := range r.links["a"].forwards {
			switch s, why := f.state(); s {
			case Open:
				open++
			case Failed:
				reason = why
			}
		}
		r.mu.Unlock()
		if open < 150 || open > 195 || reason != c.reason {
			t.Errorf("%s: %d open, the others: %q", c.name, open, reason)
		}
		r.remove("a", all[:150]...)
		wait.Until(t, 5*time.Second, "the others open", func() bool {
			return !slices.ContainsFunc(r.Forwards(), func(f Forward) bool { return f.State != Open })
		})
		r.Close()
	}
}
