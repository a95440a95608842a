package tun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const node = "/dev/net/tun"

// create makes a TUN device that did not exist. It goes away with the file.
func create(name string) (*os.File, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("no %s: the kernel has no TUN support, or its module tun is not loaded (%w)", node, err)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: node, Err: err}
	}
	if err := attach(fd, name); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// The descriptor joins Go's poller, which it may only when the device is there.
	return os.NewFile(uintptr(fd), node), nil
}

func attach(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return errors.New("invalid name")
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the name is %w by %s", ErrBusy, holder(name))
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("the capability CAP_NET_ADMIN is missing (%w)", err)
	case err != nil:
		return os.NewSyscallError("TUNSETIFF", err)
	}
	if got := request.Name(); got != name {
		return fmt.Errorf("invalid name: the kernel made it %q", got)
	}
	// The kernel may leave checksums of what its programs send to us, who do not
	// look at them: nothing between them and us could damage a packet.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM); err != nil {
		return os.NewSyscallError("TUNSETOFFLOAD", err)
	}
	return nil
}

// holder describes who has a device of this name open.
func holder(name string) string {
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	for _, info := range infos {
		process := filepath.Dir(filepath.Dir(info))
		// Reading fdinfo is cheap only for the few descriptors of TUN devices.
		target, err := os.Readlink(filepath.Join(process, "fd", filepath.Base(info)))
		if err != nil || target != node {
			continue
		}
		if space, err := os.Readlink(filepath.Join(process, "ns/net")); err != nil || space != own {
			continue
		}
		text, err := os.ReadFile(info)
		if err != nil || !hasLine(string(text), "iff:", name) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(process, "comm"))
		return fmt.Sprintf("process %s (%s)", filepath.Base(process), strings.TrimSpace(string(command)))
	}
	return "a device that no process here holds; \"ip link delete " + name + "\" removes it"
}

func hasLine(text, key, value string) bool {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok && strings.TrimSpace(rest) == value {
			return true
		}
	}
	return false
}
