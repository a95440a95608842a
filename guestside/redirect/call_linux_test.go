package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// call is what a client does: connect (or send) to an address and read the
// answer.
type call struct {
	Network     string // tcp, udp (connected) or sendto
	To          string
	Bind        string // the address to bind to before, if any
	Device      string
	OnlyV6      bool
	MPTCP       bool
	FastOpen    bool // connect by sending
	NonBlocking bool
}

// result is what a client saw.
type result struct {
	Who         string // host, guest, or the name of an error
	Seen        netip.Addr
	Peer, Local netip.AddrPort // getpeername (recvfrom for sendto), getsockname
}

func (r result) String() string {
	return fmt.Sprintf("%s peer %v local %v", r.Who, r.Peer, r.Local.Addr())
}

// patience bounds the waits for what must come.
const patience = 5 * time.Second

func sockaddr(text string) (unix.Sockaddr, int) {
	a := netip.MustParseAddrPort(text)
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}, unix.AF_INET6
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// do makes the call on the calling thread.
func (c call) do() (r result) {
	fail := func(err error) result {
		var errno syscall.Errno
		errors.As(err, &errno)
		r.Who = unix.ErrnoName(errno)
		return r
	}
	fd, err := c.open()
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	to, _ := sockaddr(c.To)
	switch {
	case c.Network == "sendto":
		err = unlessInterrupted(func() error { return unix.Sendto(fd, []byte("?"), 0, to) })
	case c.FastOpen:
		err = unix.Sendto(fd, []byte("?"), unix.MSG_FASTOPEN, to)
	case c.NonBlocking:
		err = connectNonBlocking(fd, to)
	default:
		if err = unix.Connect(fd, to); err == unix.EINTR {
			err = connected(fd) // it goes on
		}
	}
	if err != nil {
		return fail(err)
	}
	if c.Network == "udp" {
		if _, err := unix.Write(fd, []byte("?")); err != nil {
			return fail(err)
		}
	}
	if err := r.read(fd, c.Network != "sendto"); err != nil {
		return fail(err)
	}
	if c.Network == "tcp" {
		// Let the server be the first to end the connection.
		var n int
		err := unlessInterrupted(func() (err error) {
			n, err = unix.Read(fd, make([]byte, 1))
			return err
		})
		if err != nil || n > 0 {
			return fail(errors.Join(err, unix.EPROTO))
		}
	}
	return r
}

// read reads one answer and the names of the socket.
func (r *result) read(fd int, connected bool) error {
	buf := make([]byte, 256)
	var n int
	var from unix.Sockaddr
	err := unlessInterrupted(func() (err error) {
		n, from, err = unix.Recvfrom(fd, buf, 0)
		return err
	})
	if err != nil {
		return err
	}
	who, seen, _ := strings.Cut(string(buf[:n]), " ")
	r.Who = who
	if seen, err := netip.ParseAddrPort(seen); err == nil {
		r.Seen = seen.Addr()
	}
	if connected {
		if from, err = unix.Getpeername(fd); err != nil {
			return err
		}
	}
	r.Peer = addrPort(from)
	local, err := unix.Getsockname(fd)
	r.Local = addrPort(local)
	return err
}

func (c call) open() (fd int, err error) {
	typ, protocol := unix.SOCK_DGRAM, 0
	if c.Network == "tcp" {
		typ = unix.SOCK_STREAM
	}
	if c.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	_, domain := sockaddr(c.To)
	if fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return 0, err
	}
	if c.OnlyV6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return 0, err
		}
	}
	if c.Device != "" {
		if err := unix.BindToDevice(fd, c.Device); err != nil {
			return 0, err
		}
	}
	if c.Bind == "" {
		return fd, nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	from, _ := sockaddr(c.Bind)
	return fd, unix.Bind(fd, from)
}

// connectNonBlocking connects as programs with an event loop do.
func connectNonBlocking(fd int, to unix.Sockaddr) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	defer unix.SetNonblock(fd, false)
	if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
		return err
	}
	return connected(fd)
}

// connected waits for the outcome of a connect that is under way.
func connected(fd int) error {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	err := unlessInterrupted(func() error {
		_, err := unix.Poll(ready, int(patience.Milliseconds()))
		return err
	})
	if err != nil {
		return err
	}
	status, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || status == 0 {
		return err
	}
	return syscall.Errno(status)
}

// unlessInterrupted calls again what a signal of Go's scheduler has interrupted,
// which happens to calls with a timeout.
func unlessInterrupted(do func() error) error {
	for {
		if err := do(); err != unix.EINTR {
			return err
		}
	}
}

// ask makes a call in the namespace.
func (s *space) ask(t testing.TB, c call) (r result) {
	t.Helper()
	if err := s.do(func() error { r = c.do(); return nil }); err != nil {
		t.Fatal(err)
	}
	return r
}

// expect makes a call in the namespace and checks who answered.
func (s *space) expect(t testing.TB, c call, who string) result {
	t.Helper()
	r := s.ask(t, c)
	if r.Who != who {
		t.Errorf("%+v: answer of %s, want %s", c, r.Who, who)
	}
	return r
}
