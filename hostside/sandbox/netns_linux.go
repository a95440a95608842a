package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netNSDir is where ip netns looks too.
const netNSDir = "/run/netns"

// nsfsMagic is NSFS_MAGIC of linux/magic.h: a file that is a bound namespace.
const nsfsMagic = 0x6e736673

// openNetNS opens the namespace bound to path. It wraps fs.ErrNotExist when
// there is none, also where a file lies that is no namespace, as a crash
// between making the file and binding it leaves it.
func openNetNS(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "fstatfs", Path: path, Err: err}
	}
	if stat.Type != nsfsMagic {
		f.Close()
		return nil, &fs.PathError{Op: "open namespace", Path: path, Err: fs.ErrNotExist}
	}
	return f, nil
}

// ensureNetNS opens the namespace at path, adopting the one that is there and
// making it otherwise.
func ensureNetNS(path string) (ns *os.File, adopted bool, err error) {
	if ns, err := openNetNS(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ns, true, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, false, notPermitted(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return nil, false, notPermitted(err)
	}
	f.Close()
	if err := makeNetNS(path); err != nil {
		os.Remove(path)
		return nil, false, notPermitted(err)
	}
	ns, err = openNetNS(path)
	return ns, false, err
}

// makeNetNS binds a new namespace with its loopback up to the file at path.
func makeNetNS(path string) error {
	done := make(chan error)
	onOwnThread(func() { done <- bindNewNetNS(path) })
	return <-done
}

func bindNewNetNS(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare CLONE_NEWNET", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind namespace", Path: path, Err: err}
	}
	return nil
}

// loopbackUp raises lo in the thread's namespace; the kernel gives it
// 127.0.0.1 and, unless this machine has no IPv6, ::1.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// onOwnThread starts f on a thread that serves nothing else before or after: it
// stays locked, so the runtime ends it with its goroutine. It is never the main
// thread, whose network namespace is what /proc/self/net and other programs
// take for the whole process's.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// Held while the next goroutine finds another one.
		defer runtime.UnlockOSThread()
		found := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(found)
			f()
		}()
		<-found
	}()
}

// enterNetNS moves the calling thread, which must be locked, into ns.
func enterNetNS(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return notPermitted(os.NewSyscallError("setns", err))
	}
	return nil
}

// removeNetNS takes the name away. Programs that live in the namespace stay in
// it.
func removeNetNS(path string) error {
	// EINVAL: nothing is mounted there.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unmount", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// notPermitted tells what to do about a lack of privilege.
func notPermitted(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (%v)", ErrNotPermitted, err)
	}
	return err
}
