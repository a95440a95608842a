//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Blocking sockets: one thread and one system call per operation, where Go's
// poller would add two or three system calls to a round trip of 20 us.

// patience bounds every blocking call, so that a lost connection fails a
// measure instead of hanging it.
const patience = 3 * time.Second

func loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// connectTo returns a blocking socket that is connected to a loopback port.
// The type is SOCK_STREAM or SOCK_DGRAM.
func connectTo(sockType, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, sockType|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := setPatience(fd, patience); err != nil {
		unix.Close(fd)
		return -1, err
	}
	for {
		err = unix.Connect(fd, loopback(port))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to port %d: %w", port, err)
	}
	if sockType == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("TCP_NODELAY", err)
		}
	}
	return fd, nil
}

// setPatience bounds connect, send and receive.
func setPatience(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// abort closes a TCP socket with a reset, which leaves no TIME_WAIT behind:
// thousands of those would use up the client ports.
func abort(fd int) error {
	err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return os.NewSyscallError("close", err)
}

// exchange sends one byte and waits for one. A timeout is unix.EAGAIN.
func exchange(fd int, buf *[1]byte) error {
	for {
		_, err := unix.Write(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		break
	}
	for {
		n, err := unix.Read(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if n == 0 {
			return fmt.Errorf("the connection ended")
		}
		return nil
	}
}

// blockingFD takes the descriptor out of a connection or listener of package
// net, so that the caller may block on it. The caller closes it.
func blockingFD(c interface{ File() (*os.File, error) }) (int, error) {
	file, err := c.File()
	if err != nil {
		return -1, err
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

// listenTCP listens on a loopback port with plain TCP: a Go listener is an
// MPTCP socket by default, and this is no measurement of MPTCP.
func listenTCP(port int) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp4", loopbackAddr(port))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// listenUDP binds a loopback port.
func listenUDP(port int) (*net.UDPConn, error) {
	return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

func loopbackAddr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// monotonic reads CLOCK_MONOTONIC, which all processes of a machine share.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // cannot fail on Linux
	}
	return time.Duration(t.Nano())
}
