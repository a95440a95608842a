package socket

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Spec says how a server makes its socket.
type Spec struct {
	Network string // tcp or udp
	// Address to bind, with the port; empty for listen without bind. An
	// IPv4-mapped address makes an IPv6 socket.
	Address   string
	OnlyV6    bool // IPV6_V6ONLY
	MPTCP     bool
	ReusePort bool
	Device    string // SO_BINDTODEVICE
	Bare      bool   // bind, but do not listen
	Backlog   int    // 0 means 1,024
}

// Open makes the socket in the network namespace of the calling thread.
func (s Spec) Open() (_ *os.File, err error) {
	fd, to, err := s.make()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), s.Network+" "+s.Address)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := s.setOptions(fd, to); err != nil {
		return nil, err
	}
	if to != nil {
		if err := unix.Bind(fd, to); err != nil {
			return nil, fmt.Errorf("bind %s: %w", s.Address, err)
		}
	}
	if s.Network == "udp" || s.Bare {
		return f, nil
	}
	backlog := s.Backlog
	if backlog == 0 {
		backlog = 1024
	}
	return f, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// make makes the bare socket, and the address that it is to be bound to.
func (s Spec) make() (fd int, to unix.Sockaddr, err error) {
	domain, typ, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	if s.Network == "tcp" {
		typ = unix.SOCK_STREAM
	}
	if s.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	if s.Address != "" {
		a, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			return 0, nil, err
		}
		if a.Addr().Is4() {
			to = &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
		} else {
			domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
		}
	}
	fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	return fd, to, os.NewSyscallError("socket", err)
}

func (s Spec) setOptions(fd int, to unix.Sockaddr) error {
	_, six := to.(*unix.SockaddrInet6)
	type option struct {
		on                 bool
		level, name, value int
	}
	for _, o := range []option{
		{six && s.OnlyV6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{six && !s.OnlyV6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0},
		{s.ReusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{s.Network == "tcp", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	} {
		if !o.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if s.Device != "" {
		return os.NewSyscallError("bind to device", unix.BindToDevice(fd, s.Device))
	}
	return nil
}
