package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// hostileGuest is an agent that holds the key and means harm.
type hostileGuest struct {
	up      func(*link.Session) // what it does to a host
	refused atomic.Int32        // flows of its own that the host has ended
}

var _ link.Handler = (*hostileGuest)(nil)

func (g *hostileGuest) Up(s *link.Session)                     { go g.up(s) }
func (g *hostileGuest) Message(*link.Session, message.Message) {}
func (g *hostileGuest) Stream(s *link.Stream)                  { s.Refuse(wire.CodeDenied) }
func (g *hostileGuest) Datagrams(f *link.DatagramFlow)         { f.Refuse(wire.CodeDenied) }
func (g *hostileGuest) Down(*link.Session, error)              {}

// serve is its agent, in the place of the bed's, until the test ends.
func (g *hostileGuest) serve(b *bed) {
	b.t.Helper()
	l := b.listenAsAgent()
	log := logrus.New()
	log.SetOutput(io.Discard)
	server := link.NewServer(link.Config{Key: b.key[:], Name: "evil\x1b]0;guest\x07\n", Handler: g, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ctx, l)
	}()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// dials opens two flows to an address, which are to be refused.
func (g *hostileGuest) dials(t *testing.T, s *link.Session, to netip.AddrPort) {
	stats := &link.Stats{}
	ours, theirs := tcpPair(t)
	_, _ = ours.Write([]byte("let me in"))
	_ = s.OpenStream(theirs, to, to, stats)
	if f, err := s.OpenDatagrams(to, to, 0, stats, func([][]byte) {}, func(wire.Code) { g.refused.Add(1) }); err == nil {
		var batch link.DatagramBatch
		batch.Add(f, []byte("let me in"))
		batch.Send()
	}
	_ = ours.SetReadDeadline(time.Now().Add(patience))
	if n, err := ours.Read(make([]byte, 1)); n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		g.refused.Add(1)
	}
}

// H1: a guest cannot make the host bind what policy forbids, dial what policy
// denies or anything but localhost, or print control characters; nor does it leave
// files.
func TestH1HostileGuest(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{settings: "host_reach: {deny: [9000]}\n"})
	joinNamespaces(t, b.host, hostWire, newNamespace(t), guestWire)
	// What a guest might like to reach: on the host's loopback and beyond.
	victims := []*greeter{
		greet(t, here{b.host}, socket.Spec{Network: "tcp", Address: "[::]:9000"}, "victim"),
		greet(t, here{b.host}, socket.Spec{Network: "udp", Address: "[::]:9000"}, "victim"),
		greet(t, here{b.host}, socket.Spec{Network: "tcp", Address: "[::]:9001"}, "victim"),
		greet(t, here{b.host}, socket.Spec{Network: "udp", Address: "[::]:9001"}, "victim"),
	}
	destinations := []string{
		"127.0.0.1:9000", "[::1]:9000", // denied
		"0.0.0.0:9001", "[::]:9001", "127.8.9.10:9001", "224.0.0.1:9001", "255.255.255.255:9001",
		hostPort(hostWire.v4.String(), 9001), hostPort(hostWire.v6.String(), 9001),
	}

	const nasty = "\x1b[31m\x00\r\nroot\u202e\u009b31m"
	listener := func(network message.Protocol, address string) message.Listener {
		a := netip.MustParseAddrPort(address)
		return message.Listener{
			Key:   message.Key{Protocol: network, Address: a.Addr(), Port: a.Port()},
			Owner: message.Owner{Container: nasty, ContainerID: nasty, Image: "../../../etc/passwd" + nasty, Process: nasty, PID: -1},
		}
	}
	g := &hostileGuest{}
	g.up = func(s *link.Session) {
		_ = s.Send(message.Message{Agent: &message.Agent{Version: nasty, Kernel: nasty,
			Detection: message.Feature{State: nasty, Reason: nasty}, HostReach: message.Feature{State: "on", Reason: nasty}}})
		_ = s.Send(message.Message{Listeners: &message.Listeners{Reset: true, Add: []message.Listener{
			listener("tcp", "0.0.0.0:22"), listener("udp", "0.0.0.0:68"), listener("tcp", "[::]:53"),
			listener("tcp", "192.0.2.77:7000"), listener("tcp", "224.0.0.1:7000"), listener("tcp", "127.0.0.1:7001"),
		}}})
		for _, to := range destinations {
			g.dials(t, s, netip.MustParseAddrPort(to))
		}
	}
	g.serve(b)
	b.startDaemon()
	b.awaitLink()
	for name, state := range map[string]string{
		"tcp 0.0.0.0:22": control.PortIgnored, "udp 0.0.0.0:68": control.PortIgnored, "tcp [::]:53": control.PortIgnored,
		"tcp 192.0.2.77:7000": control.PortIgnored, "tcp 127.0.0.1:7001": control.PortOpen,
	} {
		b.view.port(name, state)
	}
	wait.Eventually(t, patience, "its flows are refused", func() error {
		if n := g.refused.Load(); int(n) != 2*len(destinations) {
			return fmt.Errorf("%d of %d are", n, 2*len(destinations))
		}
		return nil
	})
	for i, v := range victims {
		if n := v.greeted.Load(); n > 0 {
			t.Errorf("the guest has reached server %d of the host %d times", i, n)
		}
	}
	var bound []string
	for _, s := range b.hostSockets() {
		if !strings.HasSuffix(s, ":2328") && !strings.HasSuffix(s, ":2329") { // the victims' 9000 and 9001
			bound = append(bound, s)
		}
	}
	if len(bound) != 1 {
		t.Errorf("the host has bound %q, want 7001 alone", bound)
	}
	for _, args := range [][]string{{"ports"}, {"ports", "--json"}, {"status"}, {"status", "--json"}} {
		out, err := b.vmbridge(args...)
		must(t, err)
		noControl(t, strings.Join(args, " "), out)
	}
	noControl(t, "the daemon's log", b.daemon.output())
	entries, err := os.ReadDir(b.home)
	must(t, err)
	for _, e := range entries {
		if !slices.Contains([]string{"control.sock", "daemon.lock", "settings.yaml"}, e.Name()) {
			t.Errorf("there is a file %s in the home", e.Name())
		}
	}
}

// noControl finds what a terminal would take for a command.
func noControl(t *testing.T, what, text string) {
	t.Helper()
	for i, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%s: %q in %q", what, r, text[max(0, i-20):min(len(text), i+20)])
			return
		}
	}
}

// tcpPair is a connection within the test program.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	s, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// H2: 100,000 reported listeners are capped, with one message; the daemon lives,
// and serves the next guest.
func TestH2Listeners(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{noRace: true})
	g := &hostileGuest{}
	g.up = func(s *link.Session) {
		const all = 100000
		m := message.Listeners{Reset: true}
		for i := range all {
			k := message.Key{Protocol: message.TCP, Address: netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i/50000)}), Port: uint16(10000 + i%50000)}
			m.Add = append(m.Add, message.Listener{Key: k})
			if len(m.Add) == message.MaxListenersPerMessage || i == all-1 {
				m.More = i < all-1
				_ = s.Send(message.Message{Listeners: &m})
				m = message.Listeners{}
			}
		}
	}
	g.serve(b)
	b.startDaemon()
	b.awaitLink()
	const complaint = "the guest has more than"
	wait.Eventually(t, patience, "the daemon complains", func() error {
		if !strings.Contains(b.daemon.output(), complaint) {
			return errors.New("not yet")
		}
		return nil
	})
	if s, err := b.status(); err != nil || s.Counts.Ports > 20000 {
		t.Errorf("%d ports, %v", s.Counts.Ports, err)
	}
	if n := strings.Count(b.daemon.output(), complaint); n != 1 {
		t.Errorf("it complains %d times", n)
	}
}

// H3: another user cannot read the control socket or the key; nothing that a
// guest could reach leads to them.
func TestH3Secrets(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	b.daemon = b.spawn(b.host, "daemon", b.command("up", "--link", "vm="+b.linkURL())) // makes its own key
	b.follow()
	for path, want := range map[string]os.FileMode{
		"": 0o700, "control.sock": 0o600, "keys": 0o700, "keys/vm": 0o600,
	} {
		info, err := os.Stat(filepath.Join(b.home, path))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", info.Name(), got, want)
		}
	}
	if _, err := b.vmbridge("guest", "key", "vm"); err != nil {
		t.Errorf("its own user: %v", err)
	}
	stranger := *b
	stranger.config.ordinaryUser = true
	for _, args := range [][]string{{"status"}, {"ports"}, {"disable"}, {"guest", "key", "vm"}} {
		if out, err := stranger.vmbridge(args...); err == nil || strings.Contains(out, "vm") {
			t.Errorf("another user may %v: %s", args, out)
		}
	}
	cat := exec.Command("cat", filepath.Join(b.home, "keys", "vm"))
	cat.SysProcAttr = stranger.command().SysProcAttr
	if out, err := runFor(b.host, patience, cat); err == nil {
		t.Errorf("another user may read the key: %s", out)
	}
	// Sockets with abstract names belong to a network namespace, not to a file
	// system, and TCP to everybody.
	for name, ns := range map[string]here{"host": {b.host}, "guest": {b.guest}} {
		must(t, ns.Do(func() error {
			text, err := readFile("/proc/thread-self/net/unix")
			if strings.Contains(text, " @") {
				t.Errorf("the %s has abstract sockets:\n%s", name, text)
			}
			return err
		}))
	}
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
}
