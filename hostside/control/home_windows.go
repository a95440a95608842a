package control

import (
	"os"
	"path/filepath"
)

func userHome() (string, error) {
	dir, err := os.UserCacheDir() // %LocalAppData%
	return filepath.Join(dir, "vmbridge"), err
}

// checkHome has nothing to add on Windows: %LocalAppData% is the user's own by
// its access list, and the pipe has one of its own.
func checkHome(string) error { return nil }
