package leave

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotContainer says that the parent, whose namespace is to be entered, is none
// that this process can see: the container has process numbers of its own.
var ErrNotContainer = errors.New("the container has a pid namespace of its own")

// Container goes on as this program with other arguments, the name first, in the
// mount namespace of the process that keeps this container. It returns only when it
// could not, and then nothing has changed.
func Container(args []string) error {
	parent := os.Getppid()
	if parent == 0 {
		return ErrNotContainer
	}
	failed := make(chan error)
	// Whatever becomes of it, nothing else runs on a thread that has been elsewhere.
	go func() {
		runtime.LockOSThread()
		failed <- enter(parent, args)
	}()
	return <-failed
}

func enter(parent int, args []string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	dir := filepath.Join("/proc", strconv.Itoa(parent))
	mounts, err := os.Open(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		return err
	}
	defer mounts.Close()
	root, err := os.Open(filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	defer root.Close()
	// Go's threads share what setns refuses to change for several at once.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare CLONE_FS", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace of process %d: %w", parent, os.NewSyscallError("setns", err))
	}
	// The root of the namespace need not be that of its processes.
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	program := fmt.Sprintf("/proc/self/fd/%d", self.Fd())
	return os.NewSyscallError("exec", syscall.Exec(program, args, os.Environ()))
}

// Name names this process, which Container has named after a descriptor. Others read
// it in lists of processes, and in messages such as that a device is in use.
func Name(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0o644) // for the eye only
}

// Network names a network namespace for good: by the boot of the kernel that it is
// of, and its number there. The agent's is not to be the daemon's.
func Network() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(boot)) + "/" + namespace, nil
}
