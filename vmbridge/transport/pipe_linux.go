package transport

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is the smallest that was as fast as any, see the package comment.
// Ordinary users may have up to 1 MiB by default (/proc/sys/fs/pipe-max-size).
const pipeSize = 256 << 10

// growPipe makes room for more than the usual 64 KiB between us and the other
// process. Less is slower, but works.
func growPipe(f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}
