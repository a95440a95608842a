package vm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Image is what an initramfs has beside busybox.
type Image struct {
	Kernel  Kernel
	Modules []string          // names; what they depend on comes along
	Files   map[string]string // path in the machine to file here, all executable
	Script  string            // run by a shell once the modules are loaded
}

// busybox is where Debian's busybox-static has it.
const busybox = "/bin/busybox"

// Write makes the initramfs, or skips the test when there is no busybox.
func (i *Image) Write(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("no busybox for the machine (busybox-static): %v", err)
	}
	path := filepath.Join(t.TempDir(), "initramfs")
	if err := i.write(path); err != nil {
		t.Fatalf("make an initramfs: %v", err)
	}
	return path
}

func (i *Image) write(path string) (err error) {
	modules, err := i.Kernel.resolve(i.Modules)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	b := bufio.NewWriter(f)
	a := &archive{w: b, dirs: make(map[string]bool)}
	for _, dir := range []string{"proc", "sys", "dev", "tmp"} {
		a.directory(dir)
	}
	a.file("init", 0o755, []byte(i.init(modules)))
	a.copy("bin/busybox", busybox)
	for _, m := range modules {
		a.copy(moduleDir+filepath.Base(m), m)
	}
	for name, from := range i.Files {
		a.copy(strings.TrimPrefix(name, "/"), from)
	}
	a.entry("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	return b.Flush()
}

const moduleDir = "modules/"

func (i *Image) init(modules []string) string {
	var b strings.Builder
	b.WriteString("#!/bin/busybox sh\n" +
		"/bin/busybox --install -s /bin\n" +
		"export PATH=/bin\n" +
		"mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "insmod /%s || echo cannot load %[1]s\n", moduleDir+filepath.Base(m))
	}
	b.WriteString(i.Script)
	b.WriteString("\npoweroff -f\n")
	return b.String()
}

// archive writes cpio's "newc" format, which is what Linux unpacks.
type archive struct {
	w    io.Writer
	n    int
	dirs map[string]bool
	err  error
}

func (a *archive) copy(name, from string) {
	data, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.file(name, 0o755, data)
}

func (a *archive) file(name string, mode uint32, data []byte) {
	a.directory(filepath.Dir(name))
	a.entry(name, 0o100000|mode, data)
}

func (a *archive) directory(name string) {
	var missing []string
	for d := name; d != "." && !a.dirs[d]; d = filepath.Dir(d) {
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		a.dirs[d] = true
		a.entry(d, 0o040755, nil)
	}
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	a.n++
	// magic, inode, mode, uid, gid, links, mtime, size, two devices, name, check
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.n, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	for _, part := range []string{head, string(data)} {
		if _, a.err = io.WriteString(a.w, part+strings.Repeat("\x00", -len(part)&3)); a.err != nil {
			return
		}
	}
}
