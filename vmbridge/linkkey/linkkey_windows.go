package linkkey

import (
	"os"
)

// checkMode has nothing to check: on Windows the directory's access list, that
// of the user's profile, decides.
func checkMode(*os.File) error { return nil }

func publish(from, to string) error { return os.Link(from, to) }
