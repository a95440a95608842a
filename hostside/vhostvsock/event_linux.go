package vhostvsock

import (
	"fmt"
	"os"
)

func isEventfd(fd int) bool {
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && target == "anon_inode:[eventfd]"
}
