package hybrid

import (
	"net"

	"golang.org/x/sys/unix"
)

// hungUp reports whether the other end has closed its socket, rather than one
// direction: that is what POLLHUP says of a unix socket.
func hungUp(c *net.UnixConn) (gone bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return true
	}
	if err := rc.Control(func(fd uintptr) { gone = pollHangup(fd) }); err != nil {
		return true // closed here
	}
	return gone
}

// waitHangup waits until the other end has closed, or until c is closed here.
// It reports which: true for the other end.
func waitHangup(c *net.UnixConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	// A hang-up wakes readers, so the condition is looked at anew then.
	return rc.Read(pollHangup) == nil
}

func pollHangup(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	}
}
