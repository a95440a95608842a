package bind

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// soExclusiveAddrUse is SO_EXCLUSIVEADDRUSE of winsock2.h: ((int)(~SO_REUSEADDR)).
const soExclusiveAddrUse = ^windows.SO_REUSEADDR

func setOptions(network string, fd uintptr) error {
	h := windows.Handle(fd)
	if err := windows.SetsockoptInt(h, windows.SOL_SOCKET, soExclusiveAddrUse, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_EXCLUSIVEADDRUSE", err)
	}
	if network[:3] == "udp" {
		_ = windows.SetsockoptInt(h, windows.SOL_SOCKET, windows.SO_RCVBUF, udpBufferBytes)
		_ = windows.SetsockoptInt(h, windows.SOL_SOCKET, windows.SO_SNDBUF, udpBufferBytes)
	}
	return nil
}

// probe is not called: no rule of Windows asks for it.
func probe(string, netip.AddrPort) error { return nil }

func kindOfErrno(errno syscall.Errno) error {
	switch errno {
	case windows.WSAEADDRINUSE:
		return ErrInUse
	case windows.WSAEACCES:
		return ErrPermission
	case windows.WSAEADDRNOTAVAIL, windows.WSAEAFNOSUPPORT:
		return ErrNoAddress
	case windows.WSAEMFILE:
		return ErrDescriptors
	}
	return nil
}

// permissionHint: with SO_EXCLUSIVEADDRUSE another socket means WSAEADDRINUSE,
// so what remains for WSAEACCES are the ranges that Hyper-V and WinNAT reserve.
func permissionHint(protocol string, at netip.AddrPort) string {
	family := "ipv6"
	if at.Addr().Is4() {
		family = "ipv4"
	}
	return fmt.Sprintf("permission: the port is in a range that Windows reserves "+
		"(netsh interface %s show excludedportrange protocol=%s)", family, protocol)
}

// Descriptors is how many files this process may have open, 0 for no limit.
func Descriptors() int { return 0 }
