package reach

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// F1, F2, F7: whichever loopback family client and server use, they meet; closed on
// both is refused; a server on another address only is not reached, and neither is
// any other destination.
func TestTCPFamilies(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	if out, err := exec.Command("ip", "addr", "add", "192.0.2.1/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("ip addr add: %v %s", err, out)
	}
	b := newBed(t, nil)
	const refused, denied = "connection refused", "denied"
	for _, c := range []struct {
		servers []string
		to4     string // what clients of 127.0.0.1 get
		to6     string // what clients of ::1 get
	}{
		{nil, refused, refused},
		{[]string{"127.0.0.1:8000"}, "127.0.0.1:8000", "127.0.0.1:8000"},
		{[]string{"[::1]:8000"}, "[::1]:8000", "[::1]:8000"},
		{[]string{"127.0.0.1:8000", "[::1]:8000"}, "127.0.0.1:8000", "[::1]:8000"},
		{[]string{"0.0.0.0:8000"}, "127.0.0.1:8000", "127.0.0.1:8000"},
		{[]string{"[::]:8000"}, "[::1]:8000", "[::1]:8000"}, // V6ONLY
		{[]string{"192.0.2.1:8000", "127.0.0.2:8000"}, refused, refused},
	} {
		var stops []func()
		for _, at := range c.servers {
			stops = append(stops, greet(t, at))
		}
		if got := b.tryTCP(t, "127.0.0.1:8000"); got != c.to4 {
			t.Errorf("servers %v, 127.0.0.1: %q, want %q", c.servers, got, c.to4)
		}
		if got := b.tryTCP(t, "[::1]:8000"); got != c.to6 {
			t.Errorf("servers %v, ::1: %q, want %q", c.servers, got, c.to6)
		}
		p := b.port(message.TCP, 8000)
		if want := map[bool]State{true: Refused, false: Open}[c.to6 == refused]; p.State != want || (p.Reason == "") != (want == Open) {
			t.Errorf("servers %v: listed as %s, %q", c.servers, p.State, p.Reason)
		}
		for _, to := range []string{"192.0.2.1:8000", "127.0.0.2:8000", "0.0.0.0:8000", "[fe80::1]:8000", "203.0.113.1:8000"} {
			if got := b.tryTCP(t, to); got != denied {
				t.Errorf("servers %v, %s: %q, want %q", c.servers, to, got, denied)
			}
		}
		for _, stop := range stops {
			stop()
		}
	}
}

// F9: denied ports, those that are not allowed, and everything while host reach is
// off.
func TestPolicy(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	rules := func(list ...string) []forward.PortRule {
		out := []forward.PortRule{}
		for _, s := range list {
			r, err := forward.ParsePortRule(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	for _, at := range []string{"127.0.0.1:80", "127.0.0.1:81", "127.0.0.1:82"} {
		greet(t, at)
		echoUDP(t, at)
	}
	b := newBed(t, nil)
	const all = "80/tcp 81/tcp 82/tcp 80/udp 81/udp 82/udp "
	for _, c := range []struct {
		name   string
		policy Policy
		want   string
	}{
		{"everything", Policy{Enabled: true}, all},
		{"off", Policy{}, ""},
		{"off, whatever is allowed", Policy{Allow: rules("1-65535")}, ""},
		{"nothing allowed", Policy{Enabled: true, Allow: rules()}, ""},
		{"some allowed", Policy{Enabled: true, Allow: rules("80/tcp", "82")}, "80/tcp 82/tcp 82/udp "},
		{"some denied", Policy{Enabled: true, Deny: rules("80-81/udp")}, "80/tcp 81/tcp 82/tcp 82/udp "},
		{"deny wins", Policy{Enabled: true, Allow: rules("80-81"), Deny: rules("81/tcp")}, "80/tcp 80/udp 81/udp "},
	} {
		b.SetPolicy(c.policy)
		got := ""
		for _, protocol := range []message.Protocol{message.TCP, message.UDP} {
			for i, number := range []string{"80", "81", "82"} {
				var answer string
				if protocol == message.TCP {
					answer = b.tryTCP(t, "127.0.0.1:"+number)
				} else {
					answer = b.tryUDP(t, "127.0.0.1:"+number, "hello")
				}
				entry := b.port(protocol, uint16(80+i))
				if answer != "denied" {
					got += number + "/" + string(protocol) + " "
				} else if entry.State != Denied || entry.Reason == "" {
					t.Errorf("%s: port %s is listed as %s, %q", c.name, number, entry.State, entry.Reason)
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: reached %q, want %q", c.name, got, c.want)
		}
	}
}

// trap stands for the link that a forward leads to, and counts who gets there.
type trap struct{ calls atomic.Int64 }

func (c *trap) CarryTCP(conn *net.TCPConn, _ netip.AddrPort, _ *link.Stats) {
	c.calls.Add(1)
	reset(conn)
}

func (c *trap) CutRetired() {}

func (c *trap) CarryUDP(conn *net.UDPConn, _ netip.AddrPort, _ func(netip.Addr) bool, _ *link.Stats) error {
	defer conn.Close()
	for {
		_, _, err := conn.ReadFromUDPAddrPort(nil)
		if err != nil {
			return nil
		}
		c.calls.Add(1)
	}
}

// F5: a port that is only a forward of ours is refused, and where the other family
// has a server of somebody else, that one is reached.
func TestNoLoop(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	engine := forward.New(forward.Config{Enabled: true, Log: quiet()})
	defer engine.Close()
	carrier := &trap{}
	engine.SetLink("other", carrier)
	b := newBed(t, func(c *Config) { c.Own = engine.Holds })
	forwards := func(list ...message.Key) {
		m := message.Listeners{Reset: true}
		for _, k := range list {
			m.Add = append(m.Add, message.Listener{Key: k})
		}
		engine.ListenersChanged("other", m)
	}
	key := func(p message.Protocol, at string, dual bool) message.Key {
		ap := netip.MustParseAddrPort(at)
		return message.Key{Protocol: p, Address: ap.Addr(), Port: ap.Port(), DualStack: dual}
	}
	try := func(p message.Protocol, to string) string {
		if p == message.TCP {
			return b.tryTCP(t, to)
		}
		return b.tryUDP(t, to, "hello")
	}
	for _, p := range []message.Protocol{message.TCP, message.UDP} {
		for _, c := range []message.Key{key(p, "[::]:8000", true), key(p, "0.0.0.0:8000", false), key(p, "127.0.0.1:8000", false), key(p, "[::1]:8000", false)} {
			forwards(c)
			for _, to := range []string{"127.0.0.1:8000", "[::1]:8000"} {
				if got := try(p, to); got != "connection refused" {
					t.Errorf("forward %s, %s: %q", c, to, got)
				}
			}
			if e := b.port(p, 8000); e.State != Refused || e.Reason != "only a forward of vmbridge itself listens there" {
				t.Errorf("forward %s: listed as %s, %q", c, e.State, e.Reason)
			}
		}
		forwards(key(p, "0.0.0.0:8000", false))
		want := "hello"
		if p == message.TCP {
			defer greet(t, "[::1]:8000")()
			want = "[::1]:8000"
		} else {
			echoUDP(t, "[::1]:8000")
		}
		for _, to := range []string{"127.0.0.1:8000", "[::1]:8000"} {
			if got := try(p, to); got != want {
				t.Errorf("%s, a forward on 0.0.0.0 and a server on ::1, %s: %q, want %q", p, to, got, want)
			}
		}
	}
	if n := carrier.calls.Load(); n != 0 {
		t.Errorf("the forward was reached %d times", n)
	}
}

// A port that the kernel picks as the client's own is closed, although connecting
// to it succeeds. Of TCP, only the look is tested: package net dials again.
func TestSelfConnection(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}
	self, err := net.DialTCP("tcp4", at, at)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	other, _ := tcpPair(t)
	if !meetsItself(self) || meetsItself(other) {
		t.Errorf("%s to %s: %t; %s to %s: %t", self.LocalAddr(), self.RemoteAddr(), meetsItself(self),
			other.LocalAddr(), other.RemoteAddr(), meetsItself(other))
	}
	b := newBed(t, nil)
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40001 40001"), 0); err != nil {
		t.Skipf("cannot narrow the local ports: %v", err)
	}
	for _, to := range []string{"127.0.0.1:40001", "[::1]:40001"} {
		if got := b.tryUDP(t, to, "hello"); got != "connection refused" {
			t.Errorf("udp %s: %q", to, got)
		}
	}
}

// blackHole is a port whose listener takes no more connections: requests get no
// answer.
func blackHole(t *testing.T, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: at.Addr[:], Port: port}) // fills it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A thousand dials into a black hole time out, hold few descriptors, and delay
// nobody who asks for another port.
func TestBlackHole(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:8000")
	blackHole(t, 9)
	b := newBed(t, func(c *Config) { c.timeout = 3 * time.Second })
	before := descriptors(t)
	began := time.Now()
	var answers []<-chan wire.Code
	for range 1000 {
		_, answer := b.begin(t, "127.0.0.1:9")
		answers = append(answers, answer)
	}
	wait.Until(t, patience, "the dials are under way", func() bool { return descriptors(t) >= before+maxDialsPerPort })
	var took []time.Duration
	for range 50 {
		start := time.Now()
		if got := b.tryTCP(t, "127.0.0.1:8000"); got != "127.0.0.1:8000" {
			t.Fatal(got)
		}
		took = append(took, time.Since(start))
	}
	if n := descriptors(t) - before; n > maxDialsPerPort+10 {
		t.Errorf("%d descriptors for a thousand dials", n)
	}
	if time.Since(began) > b.timeout {
		t.Skip("the machine is too busy: the dials have timed out already")
	}
	if got := b.port(message.TCP, 9); got.Flows != 1000 || got.State != Connecting {
		t.Errorf("%+v", got)
	}
	slices.Sort(took)
	t.Logf("other port: p50 %v, max %v", took[25], took[49])
	if took[49] > time.Second {
		t.Errorf("another port took %v", took[49])
	}
	for _, answer := range answers {
		if code := wait.For(t, patience, "a timeout", answer); code != wire.CodeTimedOut {
			t.Fatalf("answered %s", code)
		}
	}
	if got := b.port(message.TCP, 9); got.Flows != 0 || got.State != Failed || got.Reason == "" {
		t.Errorf("%+v", got)
	}
}

// Half-close passes both ways, and bytes are counted where they belong.
func TestHalfClose(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:8000")
	b := newBed(t, nil)
	client := b.dial(t, "[::1]:8000")
	in := bufio.NewReader(client)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 4<<20)
	_, _ = rand.Read(sent)
	var work sync.WaitGroup
	work.Go(func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	})
	got, err := io.ReadAll(in)
	work.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	wait.Until(t, patience, "the flow ends", func() bool { return b.port(message.TCP, 8000).Flows == 0 })
	p := b.port(message.TCP, 8000)
	if p.BytesIn != uint64(len(sent)) || p.BytesOut != uint64(len(sent)+len(line)) {
		t.Errorf("counted %d in, %d out, want %d and %d", p.BytesIn, p.BytesOut, len(sent), len(sent)+len(line))
	}
	if p.Link != "vm" || p.LastUse.Before(p.Since) {
		t.Errorf("%+v", p)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.flows) != 0 {
		t.Errorf("%d flows are remembered", len(b.flows))
	}
}
