package wake

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
	"github.com/vmbridge/vmbridge/guestside/pseudofs"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
)

// feed is a Source whose events a test waits for.
type feed struct {
	*Source
	t      testing.TB
	events chan Event
}

func openFeed(t testing.TB, cfg Config) *feed {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Skip("no eBPF:", err)
	}
	f := &feed{Source: s, t: t, events: make(chan Event, 1<<16)}
	var reading sync.WaitGroup
	reading.Go(func() {
		var events []Event
		for {
			var err error
			if events, err = s.Next(events[:0]); err != nil {
				return
			}
			for _, e := range events {
				f.events <- e
			}
		}
	})
	t.Cleanup(func() {
		s.Close()
		reading.Wait()
	})
	return f
}

func (f *feed) needUDP() {
	f.t.Helper()
	if err := f.UDP(); err != nil {
		f.t.Skip("no hooks for UDP:", err)
	}
}

// wait waits for an event that is wanted, past those of other programs, and
// gives what came before.
func (f *feed) wait(what string, wanted func(Event) bool) (skipped []Event) {
	f.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-f.events:
			if wanted(e) {
				return skipped
			}
			skipped = append(skipped, e)
		case <-deadline:
			f.t.Fatalf("no %s within 10 s", what)
		}
	}
}

func cookieOf(t testing.TB, fd int) uint64 {
	t.Helper()
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// boundSocket makes a UDP socket on 127.0.0.1 and a free port that it asks for, or
// on any port.
func boundSocket(t testing.TB, port int) (fd int, local netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
}

// freePort gives a port that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	fd, local := boundSocket(t, 0)
	unix.Close(fd)
	return int(local.Port())
}

func TestTCP(t *testing.T) {
	f := openFeed(t, Config{})
	if f.TCP() != nil {
		t.Skip("no tracepoint:", f.TCP())
	}
	before := monotonic()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	f.wait("listen", func(e Event) bool { return e.Kind == TCPListen && e.Port == addr.Port() && e.Thread != 0 })
	call, ok := f.Listener(sockdiag.IPv4, addr)
	if !ok || call.PID != os.Getpid() || call.Time < before || call.Time > monotonic() {
		t.Errorf("got %+v, %v, want a call of process %d", call, ok, os.Getpid())
	}
	if call, ok := f.Listener(sockdiag.IPv6, addr); ok {
		t.Errorf("an IPv6 listener is known: %+v", call)
	}

	// A connection that is accepted comes and goes; only then the listener does.
	c, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	accepted.Close()
	mark, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mark.Close()
	port := mark.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, e := range f.wait("mark", func(e Event) bool { return e.Kind == TCPListen && e.Port == port }) {
		if e.Kind == TCPClose && e.Port == addr.Port() && e.Thread != 0 {
			t.Errorf("a connection counted as a listener: %+v", e)
		}
	}
	l.Close()
	f.wait("close", func(e Event) bool { return e.Kind == TCPClose && e.Port == addr.Port() })
}

func TestUDP(t *testing.T) {
	f := openFeed(t, Config{})
	f.needUDP()
	any, _ := boundSocket(t, 0)
	defer unix.Close(any)
	anyCookie := cookieOf(t, any)
	fd, local := boundSocket(t, freePort(t))
	cookie := cookieOf(t, fd)
	for _, e := range f.wait("bind", func(e Event) bool { return e == Event{Kind: UDPBind, Cookie: cookie} }) {
		if e.Cookie == anyCookie {
			t.Errorf("a client woke: %+v", e)
		}
	}
	call, ok := f.Bound(cookie)
	if !ok || call.PID != os.Getpid() || call.Port != local.Port() {
		t.Errorf("got %+v, %v, want port %d of process %d", call, ok, local.Port(), os.Getpid())
	}
	if call, ok := f.Bound(anyCookie); ok {
		t.Errorf("a client is remembered: %+v", call)
	}

	// A bind that fails makes no server of the socket that it was for.
	failing, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(failing)
	taken := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(local.Port())}
	if err := unix.Bind(failing, taken); err != unix.EADDRINUSE {
		t.Fatalf("bind to a port in use: %v", err)
	}
	if call, ok := f.Bound(cookieOf(t, failing)); ok {
		t.Errorf("a failed bind is remembered: %+v", call)
	}

	unix.Close(fd)
	f.wait("close", func(e Event) bool { return e == Event{Kind: UDPClose, Cookie: cookie} })
	if call, ok := f.Bound(cookie); ok {
		t.Errorf("a closed socket is remembered: %+v", call)
	}
}

func TestAnyPort(t *testing.T) {
	f := openFeed(t, Config{AnyPort: true})
	f.needUDP()
	fd, _ := boundSocket(t, 0)
	defer unix.Close(fd)
	cookie := cookieOf(t, fd)
	f.wait("bind", func(e Event) bool { return e == Event{Kind: UDPBind, Cookie: cookie} })
	if call, ok := f.Bound(cookie); !ok || call.Port != 0 {
		t.Errorf("got %+v, %v, want port 0", call, ok)
	}
}

// TestForeignUDP holds the part of A7 that is about network namespaces: UDP
// sockets of others do not wake.
func TestForeignUDP(t *testing.T) {
	f := openFeed(t, Config{})
	f.needUDP()
	if netnsCookie() == 0 {
		t.Skip("this kernel has no cookies of network namespaces")
	}
	cookies := make(chan uint64)
	go func() {
		defer close(cookies)
		runtime.LockOSThread() // and never unlock: the thread and its namespace end
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Log("unshare:", err)
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		if unix.Bind(fd, &unix.SockaddrInet4{Port: 7777}) == nil {
			cookies <- cookieOf(t, fd)
		}
	}()
	foreign, ok := <-cookies
	if !ok {
		t.Skip("no network namespace")
	}
	<-cookies
	fd, _ := boundSocket(t, freePort(t))
	defer unix.Close(fd)
	own := cookieOf(t, fd)
	for _, e := range f.wait("bind", func(e Event) bool { return e.Kind == UDPBind && e.Cookie == own }) {
		if e.Cookie == foreign {
			t.Errorf("a socket of another namespace woke: %+v", e)
		}
	}
	if call, ok := f.Bound(foreign); ok {
		t.Errorf("a socket of another namespace is remembered: %+v", call)
	}
}

// TestOtherPrograms holds G6: a program of somebody else at the same hook goes
// on deciding, whether it was there first or came later.
func TestOtherPrograms(t *testing.T) {
	root, err := pseudofs.OpenRoot("cgroup2")
	if err != nil {
		t.Skip("no cgroup2:", err)
	}
	defer root.Close()
	refuse := func(port int) {
		t.Helper()
		swapped := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(port)))
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Bind,
			License: cgroupbpf.License,
			Instructions: asm.Instructions{
				asm.LoadMem(asm.R2, asm.R1, sockAddrUserPort, asm.Word),
				asm.Mov.Imm(asm.R0, 0),
				asm.JEq.Imm(asm.R2, int32(swapped), "refuse"),
				asm.Mov.Imm(asm.R0, 1),
				asm.Return().WithSymbol("refuse"),
			}})
		if err != nil {
			t.Skip("no eBPF:", err)
		}
		defer prog.Close()
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: prog, Attach: ebpf.AttachCGroupInet4Bind})
		if err != nil {
			t.Skip("attach:", err)
		}
		t.Cleanup(func() { l.Close() })
	}
	bind := func(port int) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
	}
	first, second := freePort(t), freePort(t)
	refuse(first)
	f := openFeed(t, Config{})
	f.needUDP()
	refuse(second)
	for _, port := range []int{first, second} {
		if err := bind(port); !errors.Is(err, unix.EPERM) {
			t.Errorf("port %d: %v, want EPERM", port, err)
		}
	}
	fd, _ := boundSocket(t, freePort(t))
	defer unix.Close(fd)
	cookie := cookieOf(t, fd)
	f.wait("bind", func(e Event) bool { return e == Event{Kind: UDPBind, Cookie: cookie} })
}

func TestClose(t *testing.T) {
	s, err := Open(Config{})
	if err != nil {
		t.Skip("no eBPF:", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for err := error(nil); err == nil; {
			_, err = s.Next(nil)
		}
	}()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	<-ended
}

func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}
