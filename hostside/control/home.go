package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// HomeVariable is the environment variable that names another home.
const HomeVariable = "VMBRIDGE_HOME"

// DefaultHome is $VMBRIDGE_HOME, else a directory of the user's own:
// ~/.vmbridge, or %LOCALAPPDATA%\vmbridge on Windows.
func DefaultHome() (string, error) {
	if home := os.Getenv(HomeVariable); home != "" {
		abs, err := filepath.Abs(home)
		if err != nil {
			return "", fmt.Errorf("%s=%s: %w", HomeVariable, home, err)
		}
		return abs, nil
	}
	dir, err := userHome()
	if err != nil {
		return "", fmt.Errorf("no home directory (%w): set %s", err, HomeVariable)
	}
	return dir, nil
}

// MakeHome makes the directory with mode 0700. One that exists is taken as it
// is, unless other users could replace what lies in it.
func MakeHome(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("make home: %w: set %s to a directory that can be made", err, HomeVariable)
	}
	return checkHome(home)
}

// ErrUnsafeHome says that another user could replace what lies in the home.
var ErrUnsafeHome = errors.New("others may write to it")
