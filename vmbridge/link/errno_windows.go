package link

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const errNotConnected = windows.WSAENOTCONN

// systemCode gives the code of an error that only this system has, or 0. Windows
// has numbers of its own for the errors of sockets, which package syscall does not
// take for those of other systems.
func systemCode(err error) wire.Code {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return 0
	}
	switch errno {
	case windows.WSAECONNREFUSED:
		return wire.CodeRefused
	case windows.WSAETIMEDOUT:
		return wire.CodeTimedOut
	case windows.WSAEHOSTUNREACH:
		return wire.CodeHostUnreachable
	case windows.WSAENETUNREACH:
		return wire.CodeNetUnreachable
	case windows.WSAECONNRESET, windows.WSAECONNABORTED:
		return wire.CodeConnectionReset
	case windows.WSAEMFILE, windows.WSAENOBUFS:
		return wire.CodeResources
	case windows.WSAEADDRNOTAVAIL, windows.WSAEAFNOSUPPORT:
		return wire.CodeAddressNotUsable
	case windows.WSAEACCES:
		return wire.CodeDenied
	}
	return 0
}
