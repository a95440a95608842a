package udpbatch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// slotSize holds the largest datagram, so that none is ever cut.
	slotSize = 64 << 10
	// slotStride keeps the beginnings of the slots out of each other's cache
	// sets: at exactly 64 KiB apart all of them would share one.
	slotStride = slotSize + 256
	// keepResident is how much memory of large datagrams an idle arena keeps.
	keepResident = 1 << 20
)

// arena is memory for one recvmmsg. The slots are an anonymous mapping, of
// which only the pages that datagrams have touched are resident: 64 slots of
// 64 KiB cost 256 KiB as long as datagrams are small.
type arena struct {
	slots    []byte
	hdrs     [Batch]unix.Mmsghdr
	iovs     [Batch]unix.Iovec
	names    [Batch]sockaddr
	controls [Batch]control
	out      [Batch]Datagram
	used     int // headers that the kernel has written to since prepare
	high     [Batch]int
	resident int // sum of high
}

func newArena() (*arena, error) {
	m, err := unix.Mmap(-1, 0, Batch*slotStride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory for %d datagrams: mmap: %w", Batch, err)
	}
	// A huge page per slot would make all 4 MiB resident.
	_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE)
	a := &arena{slots: m, used: Batch}
	for i := range a.hdrs {
		a.iovs[i].Base = &m[i*slotStride]
		a.iovs[i].SetLen(slotSize)
		h := &a.hdrs[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&a.names[i]))
		h.Iov = &a.iovs[i]
		h.SetIovlen(1)
		h.Control = &a.controls[i].data[0]
	}
	return a, nil
}

// prepare resets what recvmmsg has overwritten.
func (a *arena) prepare(packetInfo bool) {
	size := 0
	if packetInfo {
		size = controlSize
	}
	for i := range a.hdrs {
		h := &a.hdrs[i].Hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(size)
	}
}

// datagrams describes the first n slots.
func (a *arena) datagrams(n int, packetInfo bool) []Datagram {
	for i := range n {
		h := &a.hdrs[i]
		size := int(h.Len)
		if size > a.high[i] {
			a.resident += size - a.high[i]
			a.high[i] = size
		}
		at := i * slotStride
		d := Datagram{Payload: a.slots[at : at+size : at+size], Peer: addrPort(&a.names[i])}
		if packetInfo {
			d.Local = a.controls[i].local(int(h.Hdr.Controllen))
		}
		a.out[i] = d
	}
	return a.out[:n]
}

// trim gives the memory of large datagrams back to the system.
func (a *arena) trim() {
	if a.resident <= keepResident {
		return
	}
	// An error leaves the pages where they are, which is no harm.
	_ = unix.Madvise(a.slots, unix.MADV_DONTNEED)
	a.high = [Batch]int{}
	a.resident = 0
}
