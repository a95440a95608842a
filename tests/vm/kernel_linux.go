package vm

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Kernel is a kernel with its modules.
type Kernel struct {
	Image   string // the file to boot
	Modules string // the directory that has kernel/ in it
}

// FindKernel gives Debian's kernel for cloud images, or skips the test with the
// reason. The package is fetched by apt and unpacked in the user's cache.
func FindKernel(t testing.TB) Kernel {
	t.Helper()
	k, err := findKernel()
	if err != nil {
		t.Skipf("no kernel to boot: %v", err)
	}
	return k
}

func findKernel() (Kernel, error) {
	name, err := kernelPackage()
	if err != nil {
		return Kernel{}, err
	}
	root, err := cached(name, func(path string) error { return unpack(name, path) })
	if err != nil {
		return Kernel{}, err
	}
	return kernelIn(root)
}

// kernelPackage asks apt which package the kernel for cloud images is today.
func kernelPackage() (string, error) {
	out, err := exec.Command("apt-cache", "depends", "--important", "linux-image-cloud-amd64").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for linux-image-cloud-amd64: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, nil
		}
	}
	return "", errors.New("apt knows no linux-image-cloud-amd64")
}

func unpack(name, root string) error {
	work := filepath.Dir(root)
	get := exec.Command("apt-get", "download", name)
	get.Dir = work
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s", name, err, out)
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(packages))
	}
	out, err := exec.Command("dpkg", "-x", packages[0], root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dpkg -x %s: %w: %s", packages[0], err, out)
	}
	return nil
}

func kernelIn(root string) (Kernel, error) {
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(root, "lib", "modules", "*"))
	if len(images) != 1 || len(modules) != 1 {
		return Kernel{}, fmt.Errorf("%s has %d kernels and %d sets of modules", root, len(images), len(modules))
	}
	return Kernel{Image: images[0], Modules: modules[0]}, nil
}
