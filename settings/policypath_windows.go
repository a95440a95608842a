package settings

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// PolicyPath is the administrator's policy file. The folder is asked of the
// system: the variable that also names it is the user's to change.
func PolicyPath() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
	if err != nil {
		dir = `C:\ProgramData`
	}
	return filepath.Join(dir, "vmbridge", "policy.json")
}
