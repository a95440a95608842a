package sockdiag

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests hold what the package assumes about the kernel.

func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Skip("no sock_diag:", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dumpOf gives the sockets with an inode.
func dumpOf(t *testing.T, c *Conn, p Protocol, inode uint64) (some []Socket) {
	t.Helper()
	all, _, err := c.Dump(nil, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if uint64(s.Inode) == inode {
			some = append(some, s)
		}
	}
	return some
}

// listen makes a socket with an ephemeral port and gives its descriptor's inode.
func listen(t *testing.T, family, typ, proto int, addr netip.Addr) (local netip.AddrPort, inode uint64, fd int) {
	t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Skip("socket:", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Addr: addr.As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Skip("bind:", err)
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		local = netip.AddrPortFrom(netip.AddrFrom4(got.Addr), uint16(got.Port))
	case *unix.SockaddrInet6:
		local = netip.AddrPortFrom(netip.AddrFrom16(got.Addr), uint16(got.Port))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return local, st.Ino, fd
}

// TestMPTCP holds that a TCP dump shows an MPTCP listener exactly once, with the
// inode of the socket that the program holds (A2).
func TestMPTCP(t *testing.T) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		local, inode, _ := listen(t, family, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, netip.IPv6Unspecified())
		some := dumpOf(t, open(t), TCP, inode)
		if len(some) != 1 || some[0].Local != local {
			t.Errorf("got %+v, want one socket at %v", some, local)
		}
	}
}

// TestCookie holds that the dump's cookie is what SO_COOKIE gives, which is what
// BPF sees.
func TestCookie(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		p := TCP
		if typ == unix.SOCK_DGRAM {
			p = UDP
		}
		_, inode, fd := listen(t, unix.AF_INET, typ, 0, netip.Addr{})
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			t.Fatal(err)
		}
		some := dumpOf(t, open(t), p, inode)
		if len(some) != 1 || some[0].Cookie != cookie || some[0].UID != uint32(os.Getuid()) {
			t.Errorf("%v: got %+v, want cookie %d", p, some, cookie)
		}
	}
}

// TestV6Only holds that the dump tells dual-stack from IPv6 only, and keeps
// IPv4-mapped addresses as they are (A1).
func TestV6Only(t *testing.T) {
	c := open(t)
	for _, network := range []string{"tcp6", "tcp", "udp6", "udp"} {
		var conn syscall.Conn
		var closer interface{ Close() error }
		p := TCP
		if network[:3] == "udp" {
			p = UDP
			l, err := net.ListenPacket(network, "[::]:0")
			if err != nil {
				t.Skip("no IPv6:", err)
			}
			conn, closer = l.(*net.UDPConn), l
		} else {
			l, err := net.Listen(network, "[::]:0")
			if err != nil {
				t.Skip("no IPv6:", err)
			}
			conn, closer = l.(*net.TCPListener), l
		}
		defer closer.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
		if err != nil {
			t.Fatal(err)
		}
		some := dumpOf(t, c, p, st.Ino)
		if want := network[3:] == "6"; len(some) != 1 || some[0].V6Only != want {
			t.Errorf("%s: got %+v, want V6Only %v", network, some, want)
		}
	}
	mapped := netip.MustParseAddr("::ffff:127.0.0.1")
	local, inode, _ := listen(t, unix.AF_INET6, unix.SOCK_DGRAM, 0, mapped)
	if some := dumpOf(t, c, UDP, inode); len(some) != 1 || some[0].Local != local || some[0].Family != IPv6 {
		t.Errorf("got %+v, want %v", some, local)
	}
}

// TestConnected holds that connected UDP sockets and bound TCP sockets that do
// not listen are not shown (A5).
func TestConnected(t *testing.T) {
	c := open(t)
	_, inode, fd := listen(t, unix.AF_INET, unix.SOCK_DGRAM, 0, netip.Addr{})
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
		t.Fatal(err)
	}
	if some := dumpOf(t, c, UDP, inode); len(some) != 0 {
		t.Errorf("a connected socket is shown: %+v", some)
	}
}

// TestDestroyed holds that the end of a listener is told.
func TestDestroyed(t *testing.T) {
	d, err := OpenDestroyed()
	if err != nil {
		t.Skip("no notifications:", err)
	}
	defer d.Close()
	d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, p := range []Protocol{TCP, UDP} {
		var port uint16
		if p == TCP {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port = l.Addr().(*net.TCPAddr).AddrPort().Port()
			l.Close()
		} else {
			l, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port = l.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			l.Close()
		}
		for found := false; !found; {
			gone, err := d.Next(nil)
			if err != nil {
				t.Fatalf("waiting for %v port %d: %v", p, port, err)
			}
			for _, g := range gone {
				found = found || g == Gone{Protocol: p, Port: port}
			}
		}
	}
}

// BenchmarkDump measures a dump of this machine's own listeners.
func BenchmarkDump(b *testing.B) {
	for _, p := range []Protocol{TCP, UDP} {
		c, err := Open()
		if err != nil {
			b.Skip(err)
		}
		defer c.Close()
		var sockets []Socket
		b.Run(p.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if sockets, _, err = c.Dump(sockets[:0], p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
