package acceptance

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/echo"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
)

// socket says how a server makes its socket.
type socket struct {
	network string // tcp or udp
	// address to bind, with the port; empty for listen without bind. An
	// IPv4-mapped address makes an IPv6 socket.
	address string
	only6   bool
	mptcp   bool
	reuse   bool   // SO_REUSEPORT
	device  string // SO_BINDTODEVICE
	bare    bool   // bind, but do not listen
	backlog int    // 0 means 1,024
}

// open makes the socket on the calling thread.
func (s socket) open() (_ *os.File, err error) {
	domain, typ, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	if s.network == "tcp" {
		typ = unix.SOCK_STREAM
	}
	if s.mptcp {
		protocol = unix.IPPROTO_MPTCP
	}
	var to unix.Sockaddr
	if s.address != "" {
		a, err := netip.ParseAddrPort(s.address)
		if err != nil {
			return nil, err
		}
		if a.Addr().Is4() {
			to = &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
		} else {
			domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
		}
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), s.network+" "+s.address)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	type option struct {
		on                 bool
		level, name, value int
	}
	for _, o := range []option{
		{domain == unix.AF_INET6 && s.only6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{domain == unix.AF_INET6 && !s.only6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0},
		{s.reuse, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{s.network == "tcp", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	} {
		if o.on {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return nil, os.NewSyscallError("setsockopt", err)
			}
		}
	}
	if s.device != "" {
		if err := unix.BindToDevice(fd, s.device); err != nil {
			return nil, os.NewSyscallError("bind to device", err)
		}
	}
	if to != nil {
		if err := unix.Bind(fd, to); err != nil {
			return nil, fmt.Errorf("bind %s: %w", s.address, err)
		}
	}
	if s.network == "udp" || s.bare {
		return f, nil
	}
	backlog := s.backlog
	if backlog == 0 {
		backlog = 1024
	}
	return f, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// listen makes a TCP server's socket in a namespace, until the test ends.
func listen(t testing.TB, ns *netns.Namespace, s socket) *net.TCPListener {
	t.Helper()
	s.network = "tcp"
	var l net.Listener
	err := ns.Do(func() error {
		f, err := s.open()
		if err != nil {
			return err
		}
		defer f.Close() // the listener has a duplicate
		l, err = net.FileListener(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// bindUDP makes a UDP server's socket in a namespace, until the test ends.
func bindUDP(t testing.TB, ns *netns.Namespace, s socket) *net.UDPConn {
	t.Helper()
	s.network = "udp"
	var c net.PacketConn
	err := ns.Do(func() error {
		f, err := s.open()
		if err != nil {
			return err
		}
		defer f.Close() // the connection has a duplicate
		c, err = net.FilePacketConn(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// echo serves in the guest until the test ends or the server is closed. The
// address that it has is returned as the view names it.
func (b *bed) echo(s socket) (server io.Closer, name string) {
	b.t.Helper()
	return serveEcho(b.t, b.guest, s)
}

func serveEcho(t testing.TB, ns *netns.Namespace, s socket) (server io.Closer, name string) {
	t.Helper()
	if s.network == "udp" {
		c := bindUDP(t, ns, s)
		go echo.UDP(c)
		return c, "udp " + unmapped(c.LocalAddr())
	}
	l := listen(t, ns, s)
	go echo.TCP(l)
	return l, "tcp " + unmapped(l.Addr())
}

// unmapped is the address without IPv4's place in IPv6.
func unmapped(a net.Addr) string {
	ap := netip.MustParseAddrPort(a.String())
	return joinPort(ap.Addr().Unmap(), ap.Port())
}

func joinPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
