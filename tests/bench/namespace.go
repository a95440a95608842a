//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace that lives as long as its descriptor.
type namespace struct {
	file *os.File
}

// newNamespace makes a network namespace with its loopback up and the given
// congestion control.
func newNamespace(congestion string) (*namespace, error) {
	var n namespace
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		n.file = f
		if err := loopbackUp(); err != nil {
			return err
		}
		return setSysctls(congestion)
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &n, nil
}

// Close lets go of the namespace. The processes in it keep it alive.
func (n *namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// do runs f on a thread inside the namespace.
func (n *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which must be locked, into the namespace.
func (n *namespace) enter() error {
	return os.NewSyscallError("setns", unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET))
}

// onOwnThread runs f on a thread that ends with it, because a thread that has
// changed its namespace must not serve other goroutines.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("SIOCSIFFLAGS lo", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}

// setSysctls prepares the calling thread's namespace.
func setSysctls(congestion string) error {
	for _, s := range []struct{ path, value string }{
		{"/proc/sys/net/ipv4/tcp_congestion_control", congestion},
		// Keep the ports that the measures listen on out of the range for
		// clients: a client that tries to connect to such a port before
		// anybody listens there could otherwise connect to itself.
		{"/proc/sys/net/ipv4/ip_local_port_range", fmt.Sprintf("%d 65535", firstClientPort)},
		// The datagram relays queue on a unix socket; its default is 10.
		{"/proc/sys/net/unix/max_dgram_qlen", "512"},
	} {
		if err := os.WriteFile(s.path, []byte(s.value), 0); err != nil {
			return err
		}
	}
	return nil
}

// congestionControl picks what the beds use: cubic, the default of most
// machines, where new namespaces may choose it, else reno, which every kernel
// allows.
func congestionControl() string {
	allowed, err := os.ReadFile("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
	if err == nil && slices.Contains(strings.Fields(string(allowed)), "cubic") {
		return "cubic"
	}
	return "reno"
}
