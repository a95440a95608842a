package hostreach

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/linkpair"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const patience = 20 * time.Second

// bed is a Reach in a network namespace of its own, and a host that answers as
// the test says. Clients have to be other processes: the agent's own, which is
// this one, stays out of the redirect.
type bed struct {
	reach *Reach
	work  sync.WaitGroup
	// The host's answers, set before it connects.
	stream    func(*link.Stream)
	datagrams func(*link.DatagramFlow)
}

func newBed(t *testing.T) *bed {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	b := &bed{reach: New(Config{Log: log})}
	t.Cleanup(func() {
		b.reach.Close()
		b.work.Wait()
	})
	return b
}

// host gives the flows of the guest to the test.
type host struct {
	linkpair.Nobody
	bed *bed
}

func (h host) Stream(s *link.Stream)          { h.bed.stream(s) }
func (h host) Datagrams(f *link.DatagramFlow) { h.bed.datagrams(f) }

// connect joins a host and gives the agent's session, and how to cut it.
func (b *bed) connect(t *testing.T) (session *link.Session, cut func()) {
	t.Helper()
	pair := linkpair.New(t, host{bed: b}, linkpair.Nobody{}, 1)
	return pair.Guest, pair.Close
}

// await waits for a state of host reach that is not on its way to another.
func (b *bed) await(t *testing.T, want string) message.Feature {
	t.Helper()
	timeout := time.After(patience)
	for {
		state, changed := b.reach.State()
		if state.State == want && !strings.HasPrefix(state.Reason, "it is being turned") {
			return state
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("host reach is %+v, want %s", state, want)
		}
	}
}

// nc runs a client, with input and what it said.
func nc(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("nc")
	if err != nil {
		t.Skip("no nc here (Debian package netcat-openbsd)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return string(out), context.Cause(ctx)
	}
	return string(out), err
}

// left names what host reach has left behind in the namespace.
func left(t *testing.T) []string {
	t.Helper()
	var names []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "tuntap" {
			names = append(names, l.Attrs().Name)
		}
	}
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Dst != nil {
			names = append(names, r.String())
		}
	}
	return names
}

// Host reach is on while a host wants it, and leaves nothing behind.
func TestOnAndOff(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t)
	b.await(t, message.HostReachOff)
	session, _ := b.connect(t)
	for range 3 {
		b.reach.Want(session, true)
		b.await(t, message.HostReachOn)
		if len(left(t)) == 0 {
			t.Error("on, and there is no device")
		}
		b.reach.Want(session, false)
		b.await(t, message.HostReachOff)
		if names := left(t); len(names) > 0 {
			t.Errorf("off, and there is %q", names)
		}
	}
	// The last word counts, however fast they follow each other.
	for range 50 {
		b.reach.Want(session, true)
		b.reach.Want(session, false)
	}
	b.reach.Want(session, true)
	b.await(t, message.HostReachOn)
	// Who changes his mind at once is told that it is on, and so is who asks for
	// what is already there.
	for range 50 {
		b.reach.Want(session, false)
		if state, _ := b.reach.State(); state.State != message.HostReachOff {
			t.Errorf("turned off, and %+v", state)
		}
		b.reach.Want(session, true)
		b.await(t, message.HostReachOn)
		_, changed := b.reach.State()
		b.reach.Want(session, true)
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	b.reach.Close()
	if names := left(t); len(names) > 0 {
		t.Errorf("closed, and there is %q", names)
	}
	b.reach.Want(session, true)
	if state, _ := b.reach.State(); state.State != message.HostReachOff {
		t.Errorf("closed, and %+v", state)
	}
}

// An agent waits for the device that another has, and takes over unasked; meanwhile it
// can be turned off, and ended.
func TestTakesOver(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	first, second, third := newBed(t), newBed(t), newBed(t)
	wants := map[*bed]*link.Session{}
	for _, b := range []*bed{first, second, third} {
		wants[b], _ = b.connect(t)
		b.reach.Want(wants[b], true)
		if b == first {
			b.await(t, message.HostReachOn)
			continue
		}
		if state := b.await(t, message.HostReachUnavailable); !strings.Contains(state.Reason, "in use by") {
			t.Errorf("got %+v", state)
		}
	}
	second.reach.Want(wants[second], false)
	second.await(t, message.HostReachOff)
	second.reach.Want(wants[second], true)
	second.await(t, message.HostReachUnavailable)
	third.reach.Close()
	first.reach.Close()
	second.await(t, message.HostReachOn)
}

// Whoever connects while host reach is turned off is refused at once, wherever the
// connect had got to: the host does not serve the port, and neither does the guest.
func TestConnectsWhileTurnedOff(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	if _, err := exec.LookPath("nc"); err != nil {
		t.Skip("no nc here (Debian package netcat-openbsd)")
	}
	b := newBed(t)
	b.stream = func(s *link.Stream) { s.Refuse(wire.CodeRefused) }
	session, _ := b.connect(t)
	// Not started one by one: a fork at the wrong moment would keep the device.
	running := filepath.Join(t.TempDir(), "running")
	if err := os.WriteFile(running, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := `while test -e "$0"; do nc -nzv -w 5 127.0.0.1 7000; done 2>&1`
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			out, _ := exec.CommandContext(ctx, "sh", "-c", loop, running).Output()
			for line := range strings.Lines(string(out)) {
				if !strings.Contains(line, "refused") {
					t.Errorf("a connect ends with %q", line)
				}
			}
			if len(out) == 0 {
				t.Error("a client has not connected")
			}
		})
	}
	for range 20 {
		b.reach.Want(session, true)
		b.await(t, message.HostReachOn)
		b.reach.Want(session, false)
		b.await(t, message.HostReachOff)
	}
	if err := os.Remove(running); err != nil {
		t.Error(err)
	}
	clients.Wait()
}

// An agent that is told to stay out does, and says why.
func TestKeptOff(t *testing.T) {
	r := New(Config{Off: true, Log: logrus.New()})
	r.Want(nil, true)
	if state, _ := r.State(); state.State != message.HostReachOff || !strings.Contains(state.Reason, "--host-reach off") {
		t.Errorf("got %+v", state)
	}
	r.Close()
}

// Somebody removes the device: it comes back.
func TestDeviceRemoved(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t)
	b.stream = func(s *link.Stream) { s.Refuse(wire.CodeRefused) }
	session, _ := b.connect(t)
	b.reach.Want(session, true)
	b.await(t, message.HostReachOn)
	for range 3 {
		device, err := netlink.LinkByName("vmbridge0")
		if err != nil {
			t.Fatal(err)
		}
		_, changed := b.reach.State()
		if err := netlink.LinkDel(device); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatal("nobody noticed")
		}
		b.await(t, message.HostReachOn)
	}
	if out, err := nc(t, "", "-zv", "127.0.0.1", "7000"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("got %q, %v", out, err)
	}
}

// F1, F2: a client gets the host's answer: connected, refused, denied. Without a
// host it is refused at once.
func TestStreams(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t)
	b.stream = func(s *link.Stream) {
		if s.Destination().Port() == 7001 {
			s.Refuse(wire.CodeDenied)
			return
		}
		if !s.Destination().Addr().IsLoopback() || !s.Source().Addr().IsLoopback() {
			t.Errorf("a flow from %s to %s", s.Source(), s.Destination())
		}
		near, far := tcpPair(t)
		b.work.Go(func() {
			defer far.Close()
			got, err := io.ReadAll(far)
			if err != nil {
				t.Error(err)
			}
			_, _ = far.Write([]byte(strings.ToUpper(string(got))))
		})
		s.Accept(near)
	}
	session, cut := b.connect(t)
	b.reach.Want(session, true)
	b.await(t, message.HostReachOn)
	for _, address := range []string{"127.0.0.1", "::1"} {
		if out, err := nc(t, "hello", "-N", address, "7000"); out != "HELLO" || err != nil {
			t.Errorf("%s: got %q, %v", address, out, err)
		}
		if out, err := nc(t, "", "-zv", address, "7001"); err == nil || !strings.Contains(out, "refused") {
			t.Errorf("%s, denied: got %q, %v", address, out, err)
		}
	}
	cut()
	<-session.Done()
	b.reach.Gone(session)
	if out, err := nc(t, "", "-zv", "127.0.0.1", "7000"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("without a host: got %q, %v", out, err)
	}
	again, _ := b.connect(t)
	b.reach.Want(again, true)
	if out, err := nc(t, "hello", "-N", "127.0.0.1", "7000"); out != "HELLO" || err != nil {
		t.Errorf("with a new host: got %q, %v", out, err)
	}
}

// F1, F2: datagrams go both ways, and what the host refuses is a port
// unreachable.
func TestDatagrams(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t)
	b.datagrams = func(f *link.DatagramFlow) {
		if f.Destination().Port() == 7001 {
			f.Accept(func([][]byte) { f.Close(wire.CodeRefused) }, func(wire.Code) {})
			return
		}
		var batch link.DatagramBatch
		f.Accept(func(payloads [][]byte) {
			for _, p := range payloads {
				batch.Add(f, []byte(strings.ToUpper(string(p))))
			}
			batch.Send()
		}, func(wire.Code) {})
	}
	session, _ := b.connect(t)
	b.reach.Want(session, true)
	b.await(t, message.HostReachOn)
	for _, address := range []string{"127.0.0.1", "::1"} {
		// -W 1: one datagram is the answer.
		if out, err := nc(t, "hello", "-u", "-W", "1", address, "7000"); out != "HELLO" || err != nil {
			t.Errorf("%s: got %q, %v", address, out, err)
		}
		if out, err := nc(t, "", "-zuv", address, "7001"); err == nil {
			t.Errorf("%s, refused: got %q, and no error", address, out)
		}
	}
}

// E3: the idle time of UDP follows the host, whether it says so before host reach
// is on or after.
func TestSetUDPIdle(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t)
	ended := make(chan wire.Code, 16)
	b.datagrams = func(f *link.DatagramFlow) {
		var echo link.DatagramBatch
		f.Accept(func(payloads [][]byte) {
			for _, p := range payloads {
				echo.Add(f, p)
			}
			echo.Send()
		}, func(code wire.Code) { ended <- code })
	}
	session, _ := b.connect(t)
	b.reach.SetUDPIdle(50 * time.Millisecond)
	b.reach.Want(session, true)
	b.await(t, message.HostReachOn)
	client := func() {
		t.Helper()
		if out, err := nc(t, "hello", "-u", "-W", "1", "127.0.0.1", "7000"); out != "hello" || err != nil {
			t.Fatalf("got %q, %v", out, err)
		}
	}
	client()
	if code := wait.For(t, patience, "the end of an association", ended); code != wire.CodeIdle {
		t.Errorf("it ended with %s", code)
	}
	b.reach.SetUDPIdle(time.Hour)
	client()
	if len(ended) > 0 {
		t.Error("an association ended too soon")
	}
	b.reach.SetUDPIdle(50 * time.Millisecond)
	wait.For(t, patience, "the end of the other", ended)
}

func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Error(err)
		return
	}
	b, err := l.Accept()
	if err != nil {
		t.Error(errors.Join(err, a.Close()))
		return
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}
