package install_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/install"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// programSize is large enough for a kill to come while it is written.
const programSize = 4 << 20

// installForEver installs two programs in turn.
func installForEver(root string) {
	for i := 0; ; i++ {
		key := linkkey.New()
		err := install.Install(context.Background(), install.Config{
			Root: root, Executable: root + []string{"/a", "/b"}[i%2], Key: &key, Out: io.Discard,
		})
		if !errors.Is(err, install.ErrNoManager) {
			panic(err)
		}
		if i == 0 {
			os.Stdout.WriteString("once\n")
		}
	}
}

// TestKilled: kill -9 at any moment leaves a whole program and a whole key, and
// the next install works.
func TestKilled(t *testing.T) {
	m := newMachine(t)
	programs := map[string]string{"a": strings.Repeat("a", programSize), "b": strings.Repeat("b", programSize)}
	for name, text := range programs {
		m.write(name, text)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inTheMiddle := 0
	for range 30 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), roleEnv+"=install "+m.root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, _ := out.Read(make([]byte, 5)); n != 5 {
			t.Error("it has not installed once")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
		if text := m.read(install.Program); text != programs["a"] && text != programs["b"] {
			t.Fatalf("the program has %d bytes of %q", len(text), text[:min(len(text), 1)])
		}
		if _, err := linkkey.Load(m.at(install.KeyFile)); err != nil {
			t.Fatal(err)
		}
		if m.has("usr/local/bin/.vmbridge-guest.new") {
			inTheMiddle++
		}
	}
	t.Logf("%d kills came while a program was written", inTheMiddle)
	if err := m.install(newKey()); !errors.Is(err, install.ErrNoManager) {
		t.Fatal(err)
	}
	if m.has("usr/local/bin/.vmbridge-guest.new") || m.read(install.Program) != "version 1" {
		t.Error("the next install has not cleaned up")
	}
}

// TestDiskFull: one clear error, and what was there stays.
func TestDiskFull(t *testing.T) {
	if !isolate.InMounts(t) {
		return
	}
	m := newMachine(t)
	m.write(install.Program, "the old one")
	if err := os.RemoveAll(m.at("usr/local/bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(m.at("usr/local/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("small", m.at("usr/local/bin"), "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(m.at("usr/local/bin"), syscall.MNT_DETACH)
	m.write(install.Program, "the old one")
	m.write("program", string(bytes.Repeat([]byte("x"), 1<<20)))
	if err := m.install(newKey()); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "program: ") {
		t.Errorf("got %v", err)
	}
	if m.read(install.Program) != "the old one" || m.has("usr/local/bin/.vmbridge-guest.new") || m.has(install.KeyFile) {
		t.Error("something has changed")
	}
}

// TestBusy: two installs do not mix.
func TestBusy(t *testing.T) {
	m := newMachine(t)
	m.write(install.Program, "the old one")
	dir, err := os.Open(m.at("usr/local/bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := m.install(newKey()); !errors.Is(err, install.ErrBusy) {
		t.Errorf("install: %v", err)
	}
	if err := install.Uninstall(t.Context(), m.config(nil)); !errors.Is(err, install.ErrBusy) {
		t.Errorf("uninstall: %v", err)
	}
	if m.read(install.Program) != "the old one" {
		t.Error("the program has changed")
	}
}
