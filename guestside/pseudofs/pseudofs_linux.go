package pseudofs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// errNoMount says that no mount of a file system type was found.
var errNoMount = errors.New("not mounted")

// OpenRoot opens the root directory of the file system of type fsType: the
// mount that is there, or else a private one of its own, which no path leads to
// and which goes away with the returned file.
func OpenRoot(fsType string) (*os.File, error) {
	f, err := openMounted(fsType)
	if err == nil {
		return f, nil
	}
	private, mountErr := mountDetached(fsType)
	if mountErr != nil {
		return nil, fmt.Errorf("%s: %w (%w)", fsType, err, mountErr)
	}
	return private, nil
}

// openMounted opens the whole-tree mount of fsType that mountinfo lists.
func openMounted(fsType string) (*os.File, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = errNoMount
	for lines := bufio.NewScanner(f); lines.Scan(); {
		point, ok := mountPoint(lines.Text(), fsType)
		if !ok {
			continue
		}
		var dir *os.File
		if dir, err = os.Open(point); err == nil {
			return dir, nil
		}
	}
	return nil, err
}

// mountPoint gives the mount point of a line of mountinfo that mounts the root
// of a file system of type fsType.
func mountPoint(line, fsType string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return "", false
	}
	if typ, _, _ := strings.Cut(after, " "); typ != fsType {
		return "", false
	}
	fields := strings.Fields(before)
	if len(fields) < 5 || fields[3] != "/" {
		return "", false
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4]), true
}

// mountDetached mounts fsType without attaching it anywhere (Linux 5.2).
func mountDetached(fsType string) (*os.File, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(root)
	dir, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	return os.NewFile(uintptr(dir), fsType), nil
}

// ReadAt reads the small file name below dir.
func ReadAt(dir *os.File, name string) (string, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}
