//go:build unix

package bind

import "syscall"

func kindOfErrno(errno syscall.Errno) error {
	switch errno {
	case syscall.EADDRINUSE:
		return ErrInUse
	case syscall.EACCES, syscall.EPERM:
		return ErrPermission
	case syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT:
		return ErrNoAddress
	case syscall.EMFILE, syscall.ENFILE:
		return ErrDescriptors
	}
	return nil
}

// Descriptors is how many files this process may have open, 0 for no limit.
// Package os has raised the soft limit to the hard one already.
func Descriptors() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > 1<<30 {
		return 0
	}
	return int(l.Cur)
}

// setBuffers asks for large buffers; what the system grants is enough to work.
func setBuffers(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, udpBufferBytes)
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, udpBufferBytes)
}
