//go:build unix && !linux

package trust

import "golang.org/x/sys/unix"

const directoryFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_DIRECTORY | unix.O_NOFOLLOW

// adminGroup is macOS's admin: its members may become root.
const adminGroup = 80

// hasAccessList: an access list of macOS does not show in the mode, so that
// looking for one here would promise what the rest cannot hold.
func hasAccessList(int) bool { return false }
