package linkkey

import (
	"os"

	"golang.org/x/sys/windows"
)

// checkMode has nothing to check: on Windows the directory's access list, that
// of the user's profile, decides.
func checkMode(*os.File) error { return nil }

// publish gives the file its name unless that is taken. MoveFile does not
// replace, and asks nothing of the file system.
func publish(from, to string) error {
	from16, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	to16, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := windows.MoveFile(from16, to16); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
