package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxLinks is how many symbolic links are followed on the way to a file.
	maxLinks = 40
	// coarse is the coarsest clock of the file systems in use (FAT).
	coarse = 2 * time.Second
	// rounds is how often a look begins again when directories come and go.
	rounds = 10
)

// file is what a look knows about a file.
type file struct {
	info    fs.FileInfo   // nil when it is not there
	failure string        // why it could not be found out
	real    string        // where it is, with no links
	way     []fs.FileInfo // of the directories and links that lead there
	// fresh: it was written so short before the look that one more write may
	// leave the same time.
	fresh bool
}

// same says if nothing about a file changed, nor who may put another in its place.
func (f file) same(g file) bool {
	if (f.info == nil) != (g.info == nil) || f.failure != g.failure || !slices.EqualFunc(f.way, g.way, sameWriters) {
		return false
	}
	return f.info == nil || f.info.ModTime().Equal(g.info.ModTime()) && f.info.Size() == g.info.Size() &&
		f.info.Mode() == g.info.Mode() && os.SameFile(f.info, g.info) && sameOwner(f.info, g.info)
}

func sameWriters(a, b fs.FileInfo) bool { return a.Mode() == b.Mode() && sameOwner(a, b) }

// look looks at all files, and wakes when one has changed since the last look.
// It follows the directories to where they are now. The lock is held.
func (w *Watcher) look() {
	touched := w.takeTouched()
	for range rounds {
		p := plan{dirs: make(map[string]bool), names: make(map[string]bool)}
		files := make(map[string]file, len(w.paths))
		for _, path := range w.paths {
			now := p.find(path)
			files[path] = now
			old, known := w.files[path]
			if known && (!now.same(old) || old.fresh && touched[fold(now.real)]) {
				select {
				case w.changed <- struct{}{}:
				default:
				}
			}
		}
		w.files, touched = files, nil
		w.interest.Store(&p.names)
		if !w.follow(p.dirs) {
			return
		}
		// Something may have changed before its directory was watched.
	}
}

// follow asks for events on these directories and on no others. It says if any
// is new.
func (w *Watcher) follow(dirs map[string]bool) (fresh bool) {
	if w.events == nil {
		return false
	}
	// A directory that was removed takes its watch with it, and a new one of the
	// same name may even have the same inode.
	alive := make(map[string]bool)
	for _, dir := range w.events.WatchList() {
		alive[dir] = true
	}
	for dir := range w.watched {
		if !dirs[dir] || !alive[dir] {
			w.events.Remove(dir) // fails where it is gone, as it may
			delete(w.watched, dir)
		}
	}
	var failure error
	for dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			continue // gone since: its parent tells, or the clock
		}
		if old, known := w.watched[dir]; known {
			if os.SameFile(old, info) {
				continue
			}
			w.events.Remove(dir) // that was another one of the same name
			delete(w.watched, dir)
		}
		fresh = true
		if err := w.events.Add(dir); err == nil {
			w.watched[dir] = info
		} else if !errors.Is(err, fs.ErrNotExist) {
			failure, fresh = err, false
		}
	}
	if failure != nil {
		w.tell(failure)
	} else {
		w.told = false
	}
	return fresh
}

// plan is where to watch for a set of files.
type plan struct {
	dirs  map[string]bool // to ask for events on
	names map[string]bool // folded: the events that matter
}

// find finds a file as the system would, and notes the way.
func (p *plan) find(path string) file {
	dir := filepath.VolumeName(path) + string(filepath.Separator)
	names := split(path[len(filepath.VolumeName(path)):])
	var way []fs.FileInfo
	for links := 0; len(names) > 0; {
		name, rest := names[0], names[1:]
		if name == ".." {
			dir, names = filepath.Dir(dir), rest
			continue
		}
		at := filepath.Join(dir, name)
		p.names[fold(at)], p.names[fold(dir)] = true, true
		info, err := os.Lstat(at)
		link := err == nil && info.Mode()&fs.ModeSymlink != 0
		if err != nil || link || len(rest) == 0 {
			p.dirs[dir] = true
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return file{real: at, way: way}
		case err != nil:
			return file{real: at, way: way, failure: err.Error()}
		case link:
			target, err := os.Readlink(at)
			way = append(way, info)
			if links++; err != nil || links > maxLinks {
				return file{real: at, way: way, failure: "a link that leads nowhere"}
			}
			if filepath.IsAbs(target) {
				dir = filepath.VolumeName(target) + string(filepath.Separator)
				target = target[len(filepath.VolumeName(target)):]
			}
			names = append(split(target), rest...)
		case len(rest) == 0:
			age := time.Since(info.ModTime())
			return file{info: info, real: at, way: way, fresh: age < coarse && age > -coarse}
		default:
			way = append(way, info)
			dir, names = at, rest
		}
	}
	return file{failure: "not a file"}
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) })
}
