//go:build unix

package link

import (
	"golang.org/x/sys/unix"
)

// canTry tells that sockets can be read and written without blocking through
// their descriptor.
const canTry = true

// tryWrite writes what fd takes at once. A full buffer is not an error.
func tryWrite(fd uintptr, p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := unix.Write(int(fd), p[written:])
		if n > 0 {
			written += n
		}
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			return written, nil
		default:
			return written, err
		}
		if err == nil && n >= 0 && written < len(p) {
			// A short write means that the buffer is full.
			return written, nil
		}
	}
	return written, nil
}

// tryRead reads what fd has. Nothing to read is reported by again.
func tryRead(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = unix.Read(int(fd), p)
		switch err {
		case nil:
			return n, false, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true, nil
		}
		return 0, false, err
	}
}

func socketError(fd uintptr) error {
	code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if code != 0 {
		return unix.Errno(code)
	}
	return nil
}
