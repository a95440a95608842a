//go:build unix && !linux

package link

// pendingError takes the error that the kernel holds for a socket, such as a
// reset that came after the peer's end of data.
func pendingError(fd uintptr) error { return socketError(fd) }
