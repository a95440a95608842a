package redirect

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectByRing connects a socket through io_uring (include/uapi/linux/io_uring.h).
func connectByRing(fd int, to *unix.RawSockaddrInet4) error {
	const (
		sqTail, sqArray, cqEntries = 44, 64, 100 // in struct io_uring_params
		requests                   = 0x10000000  // IORING_OFF_SQES
		opConnect                  = 16          // IORING_OP_CONNECT
		wait                       = 1           // IORING_ENTER_GETEVENTS
	)
	var params [120]byte
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_setup", errno)
	}
	defer unix.Close(int(ring))
	const page = 4096
	shared, err := unix.Mmap(int(ring), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(shared)
	request, err := unix.Mmap(int(ring), requests, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(request)

	var pinned runtime.Pinner // the kernel finds the address by number
	pinned.Pin(to)
	defer pinned.Unpin()
	order, offset := binary.NativeEndian, func(at int) uint32 { return binary.NativeEndian.Uint32(params[at:]) }
	request[0] = opConnect
	order.PutUint32(request[4:], uint32(fd))
	order.PutUint64(request[8:], uint64(unsafe.Sizeof(*to)))
	order.PutUint64(request[16:], uint64(uintptr(unsafe.Pointer(to))))
	order.PutUint32(shared[offset(sqArray):], 0)
	order.PutUint32(shared[offset(sqTail):], 1)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, wait, 0, 0); errno != 0 {
		return os.NewSyscallError("io_uring_enter", errno)
	}
	if status := int32(order.Uint32(shared[offset(cqEntries)+8:])); status < 0 {
		return syscall.Errno(-status)
	}
	return nil
}

// TestRing holds that a connection made through io_uring is one like others.
func TestRing(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.attach(both)
	for _, who := range []string{"host", "guest"} {
		if who == "guest" {
			b.guest.serve(t, "guest", "tcp", at8080("::"))
		}
		var r result
		err := b.guest.do(func() error {
			fd, err := call{Network: "tcp", To: at8080("127.0.0.1")}.open()
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := connectByRing(fd, rawAddress(port)); err != nil {
				return err
			}
			return r.read(fd, true)
		})
		if _, missing := err.(*os.SyscallError); missing {
			t.Skip(err)
		}
		if err != nil || r.Who != who || r.Peer.String() != at8080("127.0.0.1") {
			t.Errorf("%v, %v, want an answer of %s", r, err, who)
		}
	}
}
