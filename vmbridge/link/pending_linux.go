package link

import "golang.org/x/sys/unix"

// pendingError takes the error that the kernel holds for a socket, such as a
// reset that came after the peer's end of data.
//
// SO_ERROR alone would also tell soft errors, such as an ICMP message that a
// host is unreachable for the moment. The connection survives those; only real
// ones show up in poll.
func pendingError(fd uintptr) error {
	fds := [1]unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(fds[:], 0); err == nil && fds[0].Revents&unix.POLLERR == 0 {
		return nil
	}
	return socketError(fd)
}
