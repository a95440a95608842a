package bind

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

func setOptions(network string, fd uintptr) error {
	if network[:3] == "udp" {
		setBuffers(fd)
	}
	return nil
}

// probe binds without listening. With SO_REUSEADDR the kernel compares only
// unconnected sockets of exactly this address, so TIME_WAIT and other people's
// specific addresses do not count, and a dual-stack listener counts for IPv4.
func probe(_ string, at netip.AddrPort) error {
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if at.Addr().Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	unix.CloseOnExec(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

func permissionHint(_ string, at netip.AddrPort) string {
	if at.Port() < 1024 {
		return "permission: macOS gives ports below 1024 to ordinary users only on the wildcard address"
	}
	return "permission: a security policy of this host forbids the port"
}
