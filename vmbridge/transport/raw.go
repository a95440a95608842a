package transport

import (
	"net"
	"runtime"
	"syscall"
)

// RawWrite returns access to the descriptor that c is written to, for writing
// without waiting: system calls on it return EAGAIN rather than wait. There is
// none on Windows, and for connections that are none of the system's.
func RawWrite(c net.Conn) (syscall.RawConn, bool) {
	if p, ok := c.(interface {
		WriteRawConn() (syscall.RawConn, error)
	}); ok {
		return usable(p.WriteRawConn())
	}
	return rawConn(c)
}

func rawConn(c net.Conn) (syscall.RawConn, bool) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, false
	}
	return usable(sc.SyscallConn())
}

// usable turns down what Windows offers: RawConn exists there, but the handles
// always wait.
func usable(rc syscall.RawConn, err error) (syscall.RawConn, bool) {
	if err != nil || runtime.GOOS == "windows" {
		return nil, false
	}
	return rc, true
}
