package trust

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// directoryFlags opens a directory to walk through, which needs no leave to list
// it.
const directoryFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW

// adminGroup is no group but root's.
const adminGroup = 0

// hasAccessList says if an open file has an access list beyond its mode. It is
// asked by way of /proc, as a directory opened with O_PATH cannot be asked
// itself. What cannot be found out counts as one.
func hasAccessList(fd int) bool {
	_, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), "system.posix_acl_access", nil)
	return err != unix.ENODATA && err != unix.EOPNOTSUPP
}
