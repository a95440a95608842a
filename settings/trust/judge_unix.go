//go:build unix

package trust

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// judge says how ordinary users could write an open file or directory.
func judge(fd int, path string, st *unix.Stat_t) error {
	if reason := openTo(uint32(st.Mode), st.Uid, st.Gid); reason != "" {
		return &Error{Path: path, Reason: reason}
	}
	// An access list shows in the mode as what the group may at most.
	if st.Mode&0o020 != 0 && hasAccessList(fd) {
		return &Error{Path: path, Reason: "its access list may let others write"}
	}
	return nil
}

// openTo judges by mode and owners. A directory with the sticky bit is judged by
// its owner alone: what others put there is found out by its own owner.
func openTo(mode, uid, gid uint32) string {
	sticky := mode&unix.S_IFMT == unix.S_IFDIR && mode&unix.S_ISVTX != 0
	switch {
	case uid != 0:
		return ownedBy(uid)
	case sticky:
		return ""
	case mode&0o002 != 0:
		return "others may write"
	case mode&0o020 != 0 && gid != 0 && gid != adminGroup:
		return "group " + strconv.FormatUint(uint64(gid), 10) + " may write"
	}
	return ""
}

func ownedBy(uid uint32) string { return "owned by uid " + strconv.FormatUint(uint64(uid), 10) }

// Each call again when a signal came in between.

func openat(dir int, name string, flags int) (fd int, err error) {
	err = again(func() (err error) { fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0); return err })
	return fd, err
}

func fstatat(dir int, name string, st *unix.Stat_t) error {
	return again(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

func readlinkat(dir int, name string, b []byte) (n int, err error) {
	err = again(func() (err error) { n, err = unix.Readlinkat(dir, name, b); return err })
	return n, err
}

func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
