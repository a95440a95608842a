//go:build unix

package control

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func userHome() (string, error) {
	dir, err := os.UserHomeDir()
	return filepath.Join(dir, ".vmbridge"), err
}

func checkHome(home string) error {
	info, err := os.Stat(home)
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != os.Geteuid() {
		return fmt.Errorf("home %s: %w: it belongs to uid %d, not to %d: set %s to a directory of your own",
			home, ErrUnsafeHome, uid, os.Geteuid(), HomeVariable)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("home %s: %w (mode %#o): run chmod go-w on it", home, ErrUnsafeHome, info.Mode().Perm())
	}
	return nil
}
