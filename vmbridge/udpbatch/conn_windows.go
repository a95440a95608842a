package udpbatch

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// From ws2ipdef.h; golang.org/x/sys/windows does not have them all.
const (
	ipPktinfo   = 19 // IP_PKTINFO
	ipv6Pktinfo = 19 // IPV6_PKTINFO
)

// wsaCmsghdr is WSACMSGHDR; its data follow at the next multiple of a pointer.
type wsaCmsghdr struct {
	Len   uintptr
	Level int32
	Type  int32
}

type inPktinfo struct {
	Addr    [4]byte
	Ifindex uint32
}

type in6Pktinfo struct {
	Addr    [16]byte
	Ifindex uint32
}

const (
	cmsgHeader = int(unsafe.Sizeof(wsaCmsghdr{}))
	// controlSize has room for the packet info of both families.
	controlSize = 128
)

func (c *Conn) setOptions() error {
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) {
		h := windows.Handle(fd)
		if c.opts.Connected {
			// Go turns reports of a refusal off, for the sake of unconnected
			// sockets, where they would end a listener. On a connected one
			// they say that the peer is gone.
			on, n := uint32(1), uint32(0)
			err = os.NewSyscallError("WSAIoctl SIO_UDP_CONNRESET", windows.WSAIoctl(h, windows.SIO_UDP_CONNRESET,
				(*byte)(unsafe.Pointer(&on)), uint32(unsafe.Sizeof(on)), nil, 0, &n, nil, 0))
		}
		if err != nil || !c.opts.PacketInfo {
			return
		}
		if c.inet6 {
			err = os.NewSyscallError("setsockopt IPV6_PKTINFO", windows.SetsockoptInt(h, windows.IPPROTO_IPV6, ipv6Pktinfo, 1))
			// Needed for IPv4 on a dual-stack socket, and an error on others.
			_ = windows.SetsockoptInt(h, windows.IPPROTO_IP, ipPktinfo, 1)
		} else {
			err = os.NewSyscallError("setsockopt IP_PKTINFO", windows.SetsockoptInt(h, windows.IPPROTO_IP, ipPktinfo, 1))
		}
	})
	return errors.Join(ctlErr, err)
}

// waitReadable waits until a read would not, so that no memory is held
// meanwhile: asked again, RawConn.Read waits with an empty buffer.
func (c *Conn) waitReadable() error {
	asked := false
	return c.raw.Read(func(uintptr) bool {
		defer func() { asked = true }()
		return asked
	})
}

// localOf finds the address that a datagram came to.
func localOf(oob []byte) netip.Addr {
	for len(oob) >= cmsgHeader {
		h := (*wsaCmsghdr)(unsafe.Pointer(&oob[0]))
		if h.Len < uintptr(cmsgHeader) || h.Len > uintptr(len(oob)) {
			break
		}
		data := oob[cmsgHeader:h.Len]
		var a netip.Addr
		switch {
		case h.Level == windows.IPPROTO_IP && h.Type == ipPktinfo && len(data) >= int(unsafe.Sizeof(inPktinfo{})):
			a = netip.AddrFrom4([4]byte(data))
		case h.Level == windows.IPPROTO_IPV6 && h.Type == ipv6Pktinfo && len(data) >= int(unsafe.Sizeof(in6Pktinfo{})):
			a = netip.AddrFrom16([16]byte(data)).Unmap()
			if ifi, err := net.InterfaceByIndex(int(*(*uint32)(unsafe.Pointer(&data[16])))); err == nil && a.Is6() && a.IsLinkLocalUnicast() {
				a = a.WithZone(ifi.Name)
			}
		}
		if a.IsValid() {
			if a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
				return netip.Addr{} // nothing can be sent from it
			}
			return a
		}
		oob = oob[min(alignCmsg(int(h.Len)), len(oob)):]
	}
	return netip.Addr{}
}

// appendSource appends the ancillary data that sends from local.
func appendSource(oob []byte, local netip.Addr, inet6 bool) []byte {
	local4 := local.Unmap()
	if local4.Is4() {
		info := inPktinfo{Addr: local4.As4()}
		return appendCmsg(oob, windows.IPPROTO_IP, ipPktinfo, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
	}
	if !inet6 {
		return oob
	}
	info := in6Pktinfo{Addr: local.As16()}
	if ifi, err := net.InterfaceByName(local.Zone()); err == nil {
		info.Ifindex = uint32(ifi.Index)
	}
	return appendCmsg(oob, windows.IPPROTO_IPV6, ipv6Pktinfo, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
}

func appendCmsg(oob []byte, level, typ int32, data []byte) []byte {
	h := wsaCmsghdr{Len: uintptr(cmsgHeader + len(data)), Level: level, Type: typ}
	oob = append(oob, unsafe.Slice((*byte)(unsafe.Pointer(&h)), cmsgHeader)...)
	oob = append(oob, data...)
	for len(oob) != alignCmsg(len(oob)) {
		oob = append(oob, 0)
	}
	return oob
}

func alignCmsg(n int) int {
	const align = int(unsafe.Alignof(uintptr(0)))
	return (n + align - 1) &^ (align - 1)
}

// IsRefused says whether a soft error means that nobody listens at the peer:
// an ICMP port unreachable came back, which Windows calls a connection reset.
func IsRefused(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNREFUSED)
}

// isSoft says whether an error concerns a datagram or a peer. Everything that
// the network can cause is; what is left says that the socket is unusable.
func isSoft(err error) bool {
	var errno syscall.Errno
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case windows.ERROR_INVALID_HANDLE, windows.WSAENOTSOCK, windows.WSAEFAULT, windows.ERROR_OPERATION_ABORTED:
		return false
	}
	return true
}
