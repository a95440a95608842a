package acceptance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// F1: a program that connects through io_uring, whether the kernel does it at
// once or in a thread of its own.
func TestF1Uring(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.hostEchoes("127.0.0.1:7000")
	for name, flags := range map[string]byte{"at once": 0, "worker": sqeAsync} {
		var c net.Conn
		err := b.guest.Do(func() (err error) {
			c, err = uringConnect(7000, flags)
			return err
		})
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
			t.Skipf("no io_uring here: %v", err)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := exchange(c, []byte("ring")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.RemoteAddr().String(); got != "127.0.0.1:7000" {
			t.Errorf("%s: the peer is %s", name, got)
		}
		c.Close()
		if err := b.guest.Do(func() error { _, err := uringConnect(7001, flags); return err }); !refused(err) {
			t.Errorf("%s: a closed port gives %v", name, err)
		}
	}
}

// From the kernel's include/uapi/linux/io_uring.h.
const (
	opConnect    = 16      // IORING_OP_CONNECT
	sqeAsync     = 1 << 4  // IOSQE_ASYNC
	enterGet     = 1 << 0  // IORING_ENTER_GETEVENTS
	offsetRing   = 0       // IORING_OFF_SQ_RING, which has both rings since Linux 5.4
	offsetSQEs   = 1 << 28 // IORING_OFF_SQES
	uringEntries = 1
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq, cq                                               struct {
		head, tail, mask, entries, a, b, c, _ uint32
		_                                     uint64
	}
}

// uringConnect connects to a port of 127.0.0.1 through a ring of one entry.
func uringConnect(port uint16, flags byte) (_ net.Conn, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // the connection has a duplicate
	var p uringParams
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	defer unix.Close(int(ring))
	page := os.Getpagesize()
	rings, err := unix.Mmap(int(ring), offsetRing, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(rings)
	sqe, err := unix.Mmap(int(ring), offsetSQEs, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(sqe)

	// The address lies behind the one entry: Go's memory may move.
	to := sqe[64:80]
	binary.NativeEndian.PutUint16(to, unix.AF_INET)
	binary.BigEndian.PutUint16(to[2:], port)
	copy(to[4:], []byte{127, 0, 0, 1})
	sqe[0], sqe[1] = opConnect, flags
	binary.NativeEndian.PutUint32(sqe[4:], uint32(fd))
	binary.NativeEndian.PutUint64(sqe[8:], uint64(len(to)))
	binary.NativeEndian.PutUint64(sqe[16:], uint64(uintptr(unsafe.Pointer(&to[0]))))
	// p.sq.c is where the array of entries is, and p.cq.b where the answers are.
	binary.NativeEndian.PutUint32(rings[p.sq.c:], 0)
	atomic.AddUint32((*uint32)(unsafe.Pointer(&rings[p.sq.tail])), 1)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, enterGet, 0, 0); errno != 0 {
		return nil, os.NewSyscallError("io_uring_enter", errno)
	}
	if atomic.LoadUint32((*uint32)(unsafe.Pointer(&rings[p.cq.tail]))) != 1 {
		return nil, errors.New("io_uring: no answer")
	}
	if result := int32(binary.NativeEndian.Uint32(rings[p.cq.b+8:])); result < 0 {
		return nil, fmt.Errorf("io_uring: connect: %w", unix.Errno(-result))
	}
	return net.FileConn(f)
}
