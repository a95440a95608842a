package owner

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/pseudofs"
)

// fileIDKernfs is the type of file handles of cgroup2 (FILEID_KERNFS, Linux
// 5.5): the handle is the cgroup's id.
const fileIDKernfs = 0xfe

// maxCgroups bounds the cache of cgroups. It is emptied when full: a cgroup
// costs three system calls to find again.
const maxCgroups = 4096

// cgroups finds cgroups by id.
type cgroups struct {
	root  *os.File          // nil without cgroup2
	known map[uint64]string // container id or "", by cgroup id
}

func newCgroups() *cgroups {
	root, err := pseudofs.OpenRoot("cgroup2")
	if err != nil {
		root = nil // owners are then found through their processes
	}
	return &cgroups{root: root, known: map[uint64]string{}}
}

func (c *cgroups) close() {
	if c.root != nil {
		c.root.Close()
	}
}

// open opens the directory of a cgroup.
func (c *cgroups) open(id uint64) (*os.File, error) {
	if c.root == nil || id == 0 {
		return nil, os.ErrNotExist
	}
	handle := binary.NativeEndian.AppendUint64(nil, id)
	fd, err := unix.OpenByHandleAt(int(c.root.Fd()), unix.NewFileHandle(fileIDKernfs, handle),
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_by_handle_at", err)
	}
	return os.NewFile(uintptr(fd), "cgroup"), nil
}

// container gives the id of the container that a cgroup belongs to.
func (c *cgroups) container(id uint64) string {
	if container, ok := c.known[id]; ok {
		return container
	}
	dir, err := c.open(id)
	if err != nil {
		return "" // not remembered: the reason may pass
	}
	defer dir.Close()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return ""
	}
	container, _ := containerID(path)
	if len(c.known) >= maxCgroups {
		clear(c.known)
	}
	c.known[id] = container
	return container
}

// processes lists the processes of a cgroup.
func (c *cgroups) processes(id uint64) []int {
	dir, err := c.open(id)
	if err != nil {
		return nil
	}
	defer dir.Close()
	text, err := pseudofs.ReadAt(dir, "cgroup.procs")
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(text) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
