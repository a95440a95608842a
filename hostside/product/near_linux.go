package product

import (
	"fmt"
	"os"
)

// near tells whether a process could hold a port of ours: it is in our network
// namespace, and we may look at it. Those of containers are not.
func near(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false
	}
	mine, err := os.Readlink("/proc/thread-self/ns/net")
	return err == nil && mine == theirs
}
