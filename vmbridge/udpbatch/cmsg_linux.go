package udpbatch

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize has room for a packet info of either family and a segment size.
const controlSize = 64

// control is a buffer of ancillary data, aligned as cmsghdr must be.
type control struct {
	_    [0]uint64
	data [controlSize]byte
}

// cmsgSpace is CMSG_SPACE for a header and n bytes of data.
func cmsgSpace(n int) int { return unix.CmsgSpace(n) }

// add appends one control message to the used bytes of c and returns the
// place of its data and the new number of used bytes.
func (c *control) add(used int, level, typ int32, size int) (unsafe.Pointer, int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.data[used]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(size))
	return unsafe.Pointer(&c.data[used+unix.CmsgLen(0)]), used + cmsgSpace(size)
}

// addSource asks to send from local, as far as a socket of this family can.
func (c *control) addSource(used int, local netip.Addr, inet6 bool) int {
	if !local.IsValid() || local.IsUnspecified() || local.IsMulticast() {
		return used
	}
	if inet6 {
		p, n := c.add(used, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		*(*unix.Inet6Pktinfo)(p) = unix.Inet6Pktinfo{Addr: local.As16(), Ifindex: scopeOf(local.Zone())}
		return n
	}
	if local = local.Unmap(); !local.Is4() {
		return used
	}
	p, n := c.add(used, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	*(*unix.Inet4Pktinfo)(p) = unix.Inet4Pktinfo{Spec_dst: local.As4()}
	return n
}

// addSegment asks the kernel to cut the payload into datagrams of size bytes.
func (c *control) addSegment(used int, size uint16) int {
	p, n := c.add(used, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
	*(*uint16)(p) = size
	return n
}

// local finds the address that a datagram came to in the first n bytes of c.
func (c *control) local(n int) netip.Addr {
	for at := 0; at+unix.CmsgLen(0) <= n; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c.data[at]))
		size := int(h.Len) - unix.CmsgLen(0)
		if size < 0 || at+int(h.Len) > n {
			break
		}
		p := unsafe.Pointer(&c.data[at+unix.CmsgLen(0)])
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && size >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4((*unix.Inet4Pktinfo)(p).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && size >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(p)
			a := netip.AddrFrom16(info.Addr)
			if a.IsMulticast() {
				return netip.Addr{} // nothing can be sent from it
			}
			if a.IsLinkLocalUnicast() {
				return addr6(info.Addr, info.Ifindex)
			}
			return a.Unmap()
		}
		at += cmsgSpace(size)
	}
	return netip.Addr{}
}
