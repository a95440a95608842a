package bind_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/tests/isolate"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// listen opens an address with either protocol and forgets what is particular.
func listen(protocol, at string) (interface{ Close() error }, error) {
	if protocol == "tcp" {
		l, _, err := bind.TCP(addr(at))
		return l, err
	}
	c, _, err := bind.UDP(addr(at))
	return c, err
}

// TestExclusive: two binds of one port meet exactly where Linux says (B1, B3).
func TestExclusive(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, c := range []struct {
			first, second string
			want          error
		}{
			{"127.0.0.1:8000", "127.0.0.1:8000", bind.ErrInUse},
			{"0.0.0.0:8000", "127.0.0.1:8000", bind.ErrInUse},
			{"127.0.0.1:8000", "0.0.0.0:8000", bind.ErrInUse},
			{"[::]:8000", "[::1]:8000", bind.ErrInUse},
			{"127.0.0.1:8000", "127.0.0.2:8000", nil},
			{"0.0.0.0:8000", "[::]:8000", nil}, // V6ONLY
			{"[::]:8000", "0.0.0.0:8000", nil},
			{"127.0.0.1:8000", "[::1]:8000", nil},
			{"127.0.0.1:8000", "192.0.2.1:8000", bind.ErrNoAddress},
		} {
			a, err := listen(protocol, c.first)
			if err != nil {
				t.Fatalf("%s %s: %v", protocol, c.first, err)
			}
			b, err := listen(protocol, c.second)
			if err == nil {
				b.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s %s beside %s: %v, want %v", protocol, c.second, c.first, err, c.want)
			}
			a.Close()
		}
	}
}

// TestOthersCannotShare: sockets of programs that ask for sharing neither get
// our port nor let us into theirs.
func TestOthersCannotShare(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	share := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}}
	others := map[string]func() (interface{ Close() error }, error){
		"tcp": func() (interface{ Close() error }, error) {
			return share.Listen(context.Background(), "tcp4", "127.0.0.1:8000")
		},
		"udp": func() (interface{ Close() error }, error) {
			return share.ListenPacket(context.Background(), "udp4", "127.0.0.1:8000")
		},
	}
	for protocol, other := range others {
		ours, err := listen(protocol, "0.0.0.0:8000")
		if err != nil {
			t.Fatal(err)
		}
		if c, err := other(); err == nil {
			c.Close()
			t.Errorf("%s: another socket got in beside ours", protocol)
		}
		ours.Close()
		theirs, err := other()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := listen(protocol, "127.0.0.1:8000"); err == nil {
			c.Close()
			t.Errorf("%s: we got in beside another socket", protocol)
		}
		theirs.Close()
	}
}

// TestRebindAtOnce: the connections of a closed listener, alive or in TIME_WAIT,
// do not hold its port (C3, C5).
func TestRebindAtOnce(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	var alive []net.Conn
	for i := range 100 {
		l, _, err := bind.TCP(addr("127.0.0.1:8000"))
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		for range 3 {
			c, err := net.Dial("tcp", "127.0.0.1:8000")
			if err != nil {
				t.Fatal(err)
			}
			alive = append(alive, c)
		}
		for range 2 { // the third stays in the accept queue
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				s.Close() // ours is the side with TIME_WAIT
			} else {
				alive = append(alive, s)
			}
		}
		l.Close()
	}
	for _, c := range alive {
		c.Close()
	}
}

func TestPermission(t *testing.T) {
	if !isolate.InNetnsAsUser(t, nil) {
		return
	}
	for _, protocol := range []string{"tcp", "udp"} {
		_, err := listen(protocol, "127.0.0.1:80")
		var be *bind.Error
		if !errors.Is(err, bind.ErrPermission) || errors.Is(err, bind.ErrInUse) || !errors.As(err, &be) {
			t.Fatalf("%s: %v, want ErrPermission (B4)", protocol, err)
		}
		if want := "permission: ports below 1024 need root or CAP_NET_BIND_SERVICE (sysctl net.ipv4.ip_unprivileged_port_start)"; be.Hint != want {
			t.Errorf("%s: hint %q, want %q", protocol, be.Hint, want)
		}
	}
}

func TestNoIPv6(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Skipf("IPv6 cannot be turned off here: %v", err)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		if _, err := listen(protocol, "[::1]:8000"); !errors.Is(err, bind.ErrNoAddress) {
			t.Errorf("%s ::1: %v, want ErrNoAddress (A8)", protocol, err)
		}
		c, err := listen(protocol, "0.0.0.0:8000")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestDescriptors(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	limit := syscall.Rlimit{Cur: 30, Max: 30}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if n := bind.Descriptors(); n != 30 {
		t.Errorf("Descriptors() = %d, want 30", n)
	}
	for port := range uint16(40) {
		l, _, err := bind.TCP(netip.AddrPortFrom(addr("127.0.0.1:0").Addr(), 8000+port))
		if err == nil {
			defer l.Close()
			continue
		}
		if !errors.Is(err, bind.ErrDescriptors) {
			t.Fatalf("%v, want ErrDescriptors", err)
		}
		return
	}
	t.Fatal("40 listeners in 30 descriptors")
}
