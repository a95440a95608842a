package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Family is an address family, with the numbers of Linux.
type Family uint8

// The families that are dumped.
const (
	IPv4 Family = 2  // AF_INET
	IPv6 Family = 10 // AF_INET6
)

// Protocol is a transport protocol, with the numbers of IP.
type Protocol uint8

// The protocols that are dumped.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String gives "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// State is the state of a socket, with the numbers of Linux (TCP_* in
// include/net/tcp_states.h). UDP sockets borrow two of them.
type State uint8

// The states that matter here.
const (
	StateEstablished State = 1  // a connected socket
	StateClose       State = 7  // an unconnected UDP socket
	StateListen      State = 10 // a TCP listener
)

// Socket is what the kernel says of one socket.
type Socket struct {
	// Local is the bound address, in the socket's own family: an IPv6 socket
	// that is bound to an IPv4-mapped address keeps that form.
	Local netip.AddrPort
	// Cookie names the socket for its lifetime; BPF sees the same number.
	Cookie uint64
	// CgroupID is the id of the cgroup (version 2) that the socket was made in;
	// 0 when the kernel does not say (before 5.9).
	CgroupID uint64
	// Inode is the socket's number in /proc/PID/fd; 0 when no process holds it.
	Inode uint32
	UID   uint32
	// Interface is the index of the device that the socket is bound to, or 0.
	Interface uint32
	Family    Family
	State     State
	// V6Only is set for an IPv6 socket that does not accept IPv4.
	V6Only bool
}

// Sizes and attribute numbers of include/uapi/linux/inet_diag.h.
const (
	sizeofInetDiagMsg = 72
	sizeofAttr        = 4

	attrV6Only   = 11 // INET_DIAG_SKV6ONLY, u8
	attrCgroupID = 21 // INET_DIAG_CGROUP_ID, u64
)

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed inet_diag message")

// Decode reads one inet_diag_msg with its attributes, which is the payload of a
// netlink message of type SOCK_DIAG_BY_FAMILY.
func Decode(b []byte) (Socket, error) {
	if len(b) < sizeofInetDiagMsg {
		return Socket{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	host := binary.NativeEndian
	s := Socket{
		Family:    Family(b[0]),
		State:     State(b[1]),
		Interface: host.Uint32(b[40:]),
		Cookie:    uint64(host.Uint32(b[44:])) | uint64(host.Uint32(b[48:]))<<32,
		UID:       host.Uint32(b[64:]),
		Inode:     host.Uint32(b[68:]),
	}
	var addr netip.Addr
	switch s.Family {
	case IPv4:
		addr = netip.AddrFrom4([4]byte(b[8:12]))
	case IPv6:
		addr = netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return Socket{}, fmt.Errorf("%w: family %d", ErrMalformed, b[0])
	}
	s.Local = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:]))

	for b = b[sizeofInetDiagMsg:]; len(b) >= sizeofAttr; {
		n := int(host.Uint16(b))
		if n < sizeofAttr || n > len(b) {
			return Socket{}, fmt.Errorf("%w: attribute of %d bytes where %d are left", ErrMalformed, n, len(b))
		}
		switch value := b[sizeofAttr:n]; host.Uint16(b[2:]) & 0x3fff {
		case attrV6Only:
			if len(value) < 1 {
				return Socket{}, fmt.Errorf("%w: short INET_DIAG_SKV6ONLY", ErrMalformed)
			}
			s.V6Only = value[0] != 0
		case attrCgroupID:
			if len(value) < 8 {
				return Socket{}, fmt.Errorf("%w: short INET_DIAG_CGROUP_ID", ErrMalformed)
			}
			s.CgroupID = host.Uint64(value)
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return s, nil
}
