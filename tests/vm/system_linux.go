package vm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// System is a Debian to install, on a disk of its own.
type System struct {
	Name     string   // for the file in the cache
	Packages []string // beside the essential ones
	Script   string   // run by a shell in the new root once the packages are there
}

// release is Debian's, whatever runs the test: the system is tested with it.
const release = "bookworm"

// diskSize leaves room for what tests put there. The file has holes.
const diskSize = "4G"

// mmdebstrapFlags make a system without what only people read.
var mmdebstrapFlags = []string{
	"--mode=root", "--variant=minbase", "--quiet",
	`--aptopt=Apt::Install-Recommends "false"`,
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/info/*",
}

// Disk gives the file of the installed system, which has the kernel's modules,
// too. It is made of Debian's packages when the user's cache has none. Where that
// cannot be done the test is skipped, with the reason.
func (s System) Disk(t testing.TB, k Kernel) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("installing a system for the machine needs root")
	}
	for _, program := range []string{"mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot install a system for the machine: %v", err)
		}
	}
	key := sha256.Sum256(fmt.Append(nil, release, s.Packages, s.Script, mmdebstrapFlags, diskSize, filepath.Base(k.Modules)))
	path, err := cached(fmt.Sprintf("%s-%x.img", s.Name, key[:8]), func(path string) error {
		started := time.Now()
		err := s.install(path, k)
		t.Logf("installing %s took %v", s.Name, time.Since(started).Round(time.Second))
		return err
	})
	if errors.Is(err, errNoPackages) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("install %s: %v", s.Name, err)
	}
	return path
}

// errNoPackages: there is no way to the archive.
var errNoPackages = errors.New("cannot install Debian's packages")

func (s System) install(path string, k Kernel) error {
	root := path + ".root"
	args := append(mmdebstrapFlags[:len(mmdebstrapFlags):len(mmdebstrapFlags)],
		"--include="+strings.Join(s.Packages, ","), release, root)
	if out, err := exec.Command("mmdebstrap", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: mmdebstrap: %w: %s", errNoPackages, err, tail(out))
	}
	version := filepath.Base(k.Modules)
	modules := filepath.Join(root, "lib/modules")
	for _, step := range [][]string{
		{"mkdir", "-p", modules},
		{"cp", "-a", k.Modules, modules},
		{"chroot", root, "/sbin/depmod", version},
		{"chroot", root, "/bin/sh", "-euc", s.Script},
		{"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, path, diskSize},
		{"rm", "-rf", root},
	} {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(step, " "), err, tail(out))
		}
	}
	return nil
}

// tail is the last of what a program said.
func tail(out []byte) string {
	const most = 2000
	return strings.TrimSpace(string(out[max(0, len(out)-most):]))
}

// Initramfs boots the system that is on the machine's disk. Files are there anew
// at every boot.
func (s System) Initramfs(t testing.TB, k Kernel, modules []string, files map[string]string) string {
	i := Image{
		Kernel:  k,
		Modules: append([]string{"virtio_pci", "virtio_blk"}, modules...),
		Files:   make(map[string]string),
	}
	var script strings.Builder
	script.WriteString("mkdir /disk; mount -t ext4 /dev/vda /disk\n")
	for to, from := range files {
		i.Files["/files"+to] = from
	}
	script.WriteString("cp -a /files/. /disk/\n" +
		"umount /proc /sys; mount --move /dev /disk/dev\n" +
		"exec switch_root /disk /sbin/init\n")
	i.Script = script.String()
	return i.Write(t)
}
