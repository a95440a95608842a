package udpbatch

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr has room for either family.
type sockaddr = unix.RawSockaddrInet6

// swapPort swaps a port between the processor's order and the network's.
func swapPort(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

// addrPort reads what the kernel has stored.
func addrPort(sa *sockaddr) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), swapPort(sa4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(addr6(sa.Addr, sa.Scope_id), swapPort(sa.Port))
	}
	return netip.AddrPort{}
}

// addr6 gives the address with its zone as the interface's number, which
// costs no look-up per datagram.
func addr6(b [16]byte, scope uint32) netip.Addr {
	a := netip.AddrFrom16(b).Unmap()
	if scope != 0 && a.Is6() {
		a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	return a
}

// scopeOf is the number of a zone, given as such or as an interface's name.
func scopeOf(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	return 0
}

// put writes ap for a socket of the given family and returns the length, or 0
// when such a socket cannot send there.
func put(sa *sockaddr, ap netip.AddrPort, inet6 bool) uint32 {
	a := ap.Addr()
	if inet6 {
		if !a.IsValid() {
			return 0
		}
		*sa = sockaddr{Family: unix.AF_INET6, Port: swapPort(ap.Port()), Addr: a.As16(), Scope_id: scopeOf(a.Zone())}
		return unix.SizeofSockaddrInet6
	}
	if a = a.Unmap(); !a.Is4() {
		return 0
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapPort(ap.Port()), Addr: a.As4()}
	return unix.SizeofSockaddrInet4
}
