package udpbatch

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// platformConn is what a Conn needs on Linux. readMu guards its fields but gso.
type platformConn struct {
	tryReadFn func(fd uintptr) bool // made once: a closure per call would allocate
	arena     *arena                // lent to this Conn from tryRead to the end of fn
	received  int
	errno     error

	gso segmentation
}

func (c *Conn) setup() error {
	c.tryReadFn = c.tryRead
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) {
		var domain int
		domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			err = os.NewSyscallError("getsockopt SO_DOMAIN", err)
			return
		}
		c.inet6 = domain == unix.AF_INET6
		// Kernels before 4.18 do not know UDP_SEGMENT.
		if _, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err == nil {
			c.gso.allow(maxSegment)
		}
		if !c.opts.PacketInfo {
			return
		}
		if c.inet6 {
			err = os.NewSyscallError("setsockopt IPV6_RECVPKTINFO",
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
		} else {
			err = os.NewSyscallError("setsockopt IP_PKTINFO",
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
		}
	})
	return errors.Join(ctlErr, err)
}

func (c *Conn) readBatch(fn func([]Datagram)) error {
	for {
		err := c.raw.Read(c.tryReadFn)
		if err != nil {
			return err
		}
		if c.arena != nil {
			break
		}
		if !isSoft(c.errno) {
			return os.NewSyscallError("recvmmsg", c.errno)
		}
		// The hook runs here, not inside tryRead: there it could not close
		// the socket, because Close waits for tryRead to return.
		c.soft(os.NewSyscallError("recvmmsg", c.errno))
	}
	a := c.arena
	defer func() {
		c.arena = nil
		c.pool.giveBack(a)
	}()
	fn(a.datagrams(c.received, c.opts.PacketInfo))
	return nil
}

// tryRead is called by the netpoller whenever the socket may be readable. It
// returns false to wait, holding no memory.
func (c *Conn) tryRead(fd uintptr) bool {
	a, err := c.pool.borrow()
	if err != nil {
		c.errno = err
		return true
	}
	a.prepare(c.opts.PacketInfo)
	for {
		n, errno := recvmmsg(fd, a.hdrs[:])
		switch errno {
		case 0:
			c.arena, c.received = a, n
			return true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			c.pool.giveBack(a)
			return false
		default:
			c.pool.giveBack(a)
			c.errno = errno
			return true
		}
	}
}

// IsRefused says whether a soft error means that nobody listens at the peer:
// an ICMP port unreachable came back.
func IsRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// isSoft says whether an error concerns a datagram or a peer. Everything that
// the network can cause is; what is left says that the socket is unusable.
func isSoft(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.ENOSYS:
		return false
	}
	return true
}
