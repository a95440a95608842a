//go:build !linux && !windows

package udpbatch

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// controlSize has room for the packet info of either family and a reserve.
const controlSize = 128

func (c *Conn) setOptions() error {
	if !c.opts.PacketInfo {
		return nil
	}
	if c.inet6 {
		return ipv6.NewPacketConn(c.udp).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	}
	return ipv4.NewPacketConn(c.udp).SetControlMessage(ipv4.FlagDst, true)
}

// waitReadable waits until a read would not, so that no memory is held
// meanwhile. A pending error counts as readable.
func (c *Conn) waitReadable() error {
	return c.raw.Read(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		return n > 0 || (err != nil && err != unix.EINTR)
	})
}

// localOf finds the address that a datagram came to.
func localOf(oob []byte) netip.Addr {
	if len(oob) == 0 {
		return netip.Addr{}
	}
	var cm6 ipv6.ControlMessage
	if err := cm6.Parse(oob); err == nil && cm6.Dst != nil {
		a, _ := netip.AddrFromSlice(cm6.Dst)
		if a = a.Unmap(); a.IsLinkLocalUnicast() && a.Is6() {
			if ifi, err := net.InterfaceByIndex(cm6.IfIndex); err == nil {
				a = a.WithZone(ifi.Name)
			}
		}
		if a.IsMulticast() {
			return netip.Addr{} // nothing can be sent from it
		}
		return a
	}
	var cm4 ipv4.ControlMessage
	if err := cm4.Parse(oob); err == nil && cm4.Dst != nil {
		a, _ := netip.AddrFromSlice(cm4.Dst)
		if a = a.Unmap(); a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return netip.Addr{}
		}
		return a
	}
	return netip.Addr{}
}

// appendSource appends the ancillary data that sends from local.
func appendSource(oob []byte, local netip.Addr, inet6 bool) []byte {
	if inet6 {
		if local.Unmap().Is4() {
			return oob // such a socket cannot choose an IPv4 source here
		}
		cm := ipv6.ControlMessage{Src: local.WithZone("").AsSlice()}
		if ifi, err := net.InterfaceByName(local.Zone()); err == nil {
			cm.IfIndex = ifi.Index
		}
		return append(oob, cm.Marshal()...)
	}
	cm := ipv4.ControlMessage{Src: local.Unmap().AsSlice()}
	return append(oob, cm.Marshal()...)
}

// IsRefused says whether a soft error means that nobody listens at the peer:
// an ICMP port unreachable came back.
func IsRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// isSoft says whether an error concerns a datagram or a peer. Everything that
// the network can cause is; what is left says that the socket is unusable.
func isSoft(err error) bool {
	var errno syscall.Errno
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.ENOSYS:
		return false
	}
	return true
}
