package watch

import "io/fs"

// sameOwner: stat does not tell the owner here.
func sameOwner(_, _ fs.FileInfo) bool { return true }
