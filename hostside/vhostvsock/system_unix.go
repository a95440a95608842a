//go:build (linux || darwin) && (amd64 || arm64)

package vhostvsock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// supported: the rings and the protocol are read as little-endian machines that
// do not tear aligned words have them.
const supported = true

// rightsBytes is room for the descriptors of the largest table of regions.
var rightsBytes = unix.CmsgSpace(4 * maxRegions)

// parseRights takes the descriptors that came with a message.
func parseRights(b []byte, flags int) ([]int, error) {
	var all []int
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, fmt.Errorf("parse the control message: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			all = append(all, fds...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return all, fmt.Errorf("more than %d descriptors came", maxRegions)
	}
	return all, nil
}

func closeDescriptor(fd int) { unix.Close(fd) }

// mapShared maps size bytes at an offset of a file. The file is mapped from its
// beginning, as the offset of huge pages need not be a multiple of ours.
func mapShared(fd int, offset, size uint64) ([]byte, func() error, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, os.NewSyscallError("fstat", err)
	}
	if st.Size < 0 || offset+size > uint64(st.Size) {
		return nil, nil, fmt.Errorf("%d bytes at %d of a file of %d: %w", size, offset, st.Size, syscall.EINVAL)
	}
	page := uint64(max(st.Blksize, 4096))
	length := (offset + size + page - 1) / page * page
	all, err := unix.Mmap(fd, 0, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	return all[offset : offset+size : offset+size], func() error {
		return os.NewSyscallError("munmap", unix.Munmap(all))
	}, nil
}

// newKick takes an eventfd, or the end of a pipe, to read from.
func newKick(fd int) (*os.File, error) {
	if err := checkEvent(fd); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "kick"), nil
}

// checkEvent closes what is neither an eventfd nor a pipe: QEMU uses pipes where
// the system has no eventfds. A file would have no end of kicks.
func checkEvent(fd int) error {
	var st unix.Stat_t
	err := os.NewSyscallError("fstat", unix.Fstat(fd, &st))
	if err == nil && uint32(st.Mode)&unix.S_IFMT != unix.S_IFIFO && !isEventfd(fd) {
		err = errors.New("a descriptor is neither an eventfd nor a pipe")
	}
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// readKick waits for kicks and takes them. The front end can make our descriptor a
// blocking one again, as it shares the flag, and a read would then outlast Close: so
// it reads what is there only.
func readKick(file *os.File, b []byte) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var readErr error
	err = rc.Read(func(fd uintptr) bool {
		if !pollNow(int(fd), unix.POLLIN) {
			return false
		}
		for {
			if n, readErr = unix.Read(int(fd), b); readErr != unix.EINTR {
				return readErr != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		if _, closed := file.Read(nil); closed != nil {
			return closed // os.ErrClosed, which rc does not say
		}
		return err
	case readErr != nil:
		return os.NewSyscallError("read", readErr)
	case n == 0:
		return io.EOF
	}
	return nil
}

// pollNow reports whether the descriptor is ready for events.
func pollNow(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// notifier is an eventfd, or the end of a pipe, to write to. The nil notifier does
// nothing.
type notifier struct{ fd int }

func newNotifier(fd int) (*notifier, error) {
	if err := checkEvent(fd); err != nil {
		return nil, err
	}
	return &notifier{fd: fd}, nil
}

// notify never waits: when the counter or the pipe is full there are more
// notifications waiting than anybody needs. A pipe whose reader has gone is
// EPIPE, and the session about to end: Go raises SIGPIPE for standard output and
// error alone. It asks first, since the front end can make the descriptor block.
func (n *notifier) notify() {
	if n == nil || !pollNow(n.fd, unix.POLLOUT) {
		return
	}
	one := [8]byte{1}
	for {
		if _, err := unix.Write(n.fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

func (n *notifier) close() {
	if n != nil {
		unix.Close(n.fd)
	}
}
