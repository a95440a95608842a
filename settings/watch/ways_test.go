package watch

import (
	"os"
	"testing"
)

// ways is every way for a file to change, below a directory of the test's own.
// Before each, the file is there with the text "before".
var ways = []struct {
	name  string
	file  string // followed
	setup func(t *testing.T, dir string)
	steps []func(t *testing.T, dir string) // each wakes
}{
	{"written in place", "f", plain, []func(*testing.T, string){
		func(t *testing.T, dir string) { write(t, dir+"/f", "after") },
		func(t *testing.T, dir string) { write(t, dir+"/f", "") },
	}},
	{"the same size, at once", "f", plain, []func(*testing.T, string){
		func(t *testing.T, dir string) { write(t, dir+"/f", "befort") },
		func(t *testing.T, dir string) { write(t, dir+"/f", "befors") },
		func(t *testing.T, dir string) { write(t, dir+"/f", "before") },
	}},
	{"replaced by an editor", "f", plain, []func(*testing.T, string){replaced("f"), replaced("f")}},
	{"vim with a backup", "f", plain, []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.Rename(dir+"/f", dir+"/f~"))
			write(t, dir+"/f", "after")
			check(t, os.Remove(dir+"/f~"))
		},
	}},
	{"removed and made again", "f", plain, []func(*testing.T, string){
		func(t *testing.T, dir string) { check(t, os.Remove(dir+"/f")) },
		func(t *testing.T, dir string) { write(t, dir+"/f", "after") },
	}},
	{"mode", "f", plain, []func(*testing.T, string){
		func(t *testing.T, dir string) { check(t, os.Chmod(dir+"/f", 0o644)) },
	}},
	{"mode of its directory", "a/f", in("a"), []func(*testing.T, string){
		func(t *testing.T, dir string) { check(t, os.Chmod(dir+"/a", 0o755)) },
	}},
	{"mode of the directory of a missing file", "a/f", func(t *testing.T, dir string) { check(t, os.Mkdir(dir+"/a", 0o700)) }, []func(*testing.T, string){
		func(t *testing.T, dir string) { check(t, os.Chmod(dir+"/a", 0o755)) },
	}},
	{"directories appear one by one", "a/b/f", nothing, []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.Mkdir(dir+"/a", 0o700))
			check(t, os.Mkdir(dir+"/a/b", 0o700))
			write(t, dir+"/a/b/f", "1")
		},
		replaced("a/b/f"),
	}},
	{"directory removed and made again", "a/f", in("a"), []func(*testing.T, string){
		func(t *testing.T, dir string) { check(t, os.RemoveAll(dir+"/a")) },
		func(t *testing.T, dir string) {
			check(t, os.Mkdir(dir+"/a", 0o700))
			write(t, dir+"/a/f", "again")
		},
		replaced("a/f"),
	}},
	{"directory removed and made again at once", "a/f", in("a"), []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.RemoveAll(dir+"/a"))
			check(t, os.Mkdir(dir+"/a", 0o700))
			write(t, dir+"/a/f", "again")
		},
		replaced("a/f"),
	}},
	{"directory renamed and another put there", "a/f", in("a"), []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.Mkdir(dir+"/new", 0o700))
			write(t, dir+"/new/f", "new")
			check(t, os.Rename(dir+"/a", dir+"/old"))
			check(t, os.Rename(dir+"/new", dir+"/a"))
		},
		replaced("a/f"),
	}},
	{"target of a link written", "link", func(t *testing.T, dir string) {
		in("stow")(t, dir)
		check(t, os.Symlink("stow/f", dir+"/link"))
	}, []func(*testing.T, string){
		func(t *testing.T, dir string) { write(t, dir+"/stow/f", "after") },
		replaced("stow/f"),
	}},
	{"link turned", "link", func(t *testing.T, dir string) {
		in("one")(t, dir)
		in("two")(t, dir)
		check(t, os.Symlink("one/f", dir+"/link"))
	}, []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.Symlink(dir+"/two/f", dir+"/next"))
			check(t, os.Rename(dir+"/next", dir+"/link"))
		},
		replaced("two/f"),
	}},
	{"link of a directory turned, as Kubernetes does", "conf/f", func(t *testing.T, dir string) {
		check(t, os.Mkdir(dir+"/conf", 0o700))
		in("conf/..1")(t, dir)
		in("conf/..2")(t, dir)
		check(t, os.Symlink("..1", dir+"/conf/..data"))
		check(t, os.Symlink("..data/f", dir+"/conf/f"))
	}, []func(*testing.T, string){
		func(t *testing.T, dir string) {
			check(t, os.Symlink("..2", dir+"/conf/..next"))
			check(t, os.Rename(dir+"/conf/..next", dir+"/conf/..data"))
			check(t, os.RemoveAll(dir+"/conf/..1"))
		},
		replaced("conf/..2/f"),
	}},
	{"link that leads nowhere yet", "link", func(t *testing.T, dir string) {
		check(t, os.Symlink("later/f", dir+"/link"))
	}, []func(*testing.T, string){
		func(t *testing.T, dir string) { in("later")(t, dir) },
		func(t *testing.T, dir string) { check(t, os.RemoveAll(dir+"/later")) },
	}},
}

func nothing(*testing.T, string)     {}
func plain(t *testing.T, dir string) { write(t, dir+"/f", "before") }
func in(sub string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		check(t, os.Mkdir(dir+"/"+sub, 0o700))
		write(t, dir+"/"+sub+"/f", "before")
	}
}

// replaced writes a new file and renames it over the old one.
func replaced(file string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		write(t, dir+"/"+file+".new", "replaced")
		check(t, os.Rename(dir+"/"+file+".new", dir+"/"+file))
	}
}
