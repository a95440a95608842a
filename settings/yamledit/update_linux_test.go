package yamledit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Root's edit of a user's file leaves it the user's.
func TestUpdateKeepsOwnerAndMode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := fileWith(t, "a: 1\n")
	if err := errors.Join(os.Chown(path, 12345, 23456), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	if err := Update(path, replaceBy("a: 2\n")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid != 12345 || st.Gid != 23456 || info.Mode().Perm() != 0o640 {
		t.Errorf("owners %d and %d, mode %v", st.Uid, st.Gid, info.Mode())
	}
}

// A full disk leaves the old file whole and says so.
func TestUpdateOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("vmbridge-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "settings.yaml")
	old := "a: 1 # " + strings.Repeat("x", 20000) + "\n"
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Update(path, replaceBy(old+strings.Repeat("# more\n", 8000)))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	if textOf(t, path) != old {
		t.Error("the file is not the old one")
	}
	if left := leftovers(t, path); left != nil {
		t.Errorf("left behind %q", left)
	}
	if err := Update(path, replaceBy("a: 2\n")); err != nil || textOf(t, path) != "a: 2\n" {
		t.Errorf("no smaller text after that: %v", err)
	}
}

// A FIFO where the file should be does not hold the caller.
func TestUpdateRefusesAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Update(path, replaceBy("")); err == nil {
		t.Error("no error")
	}
}
