package isolation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/engine"
)

const (
	// maxEngines bounds the sockets that are asked.
	maxEngines = 16
	// An engine that does not answer is asked again after a pause that doubles.
	askAgain, askAgainAtLeast = time.Second, 16 * time.Second
)

// socketID names a socket. A path may lead to another one after a while, and
// several paths to one.
type socketID struct{ dev, ino uint64 }

// lookForEngines finds the engines' sockets and starts what is due there; it
// returns what it has started. begun says that an engine has just begun: those
// that did not answer are asked at once.
func (w *Watcher) lookForEngines(ctx context.Context, now time.Time, begun bool) []*followed {
	sockets, surplus := w.sockets()
	var started, all []*followed
	for id, f := range w.engines {
		if sockets[id] == "" {
			f.stop()
			delete(w.engines, id)
		}
	}
	runs := w.processes.hasEngine()
	for id, path := range sockets {
		f := w.engines[id]
		if f == nil {
			f = newFollowed(w, path)
			w.engines[id] = f
		}
		if f.start(ctx, now, begun, runs) {
			started = append(started, f)
		}
		all = append(all, f)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followed, w.surplus = all, surplus
	w.settle()
	return started
}

// sockets finds the sockets that there are, and says what is left out.
func (w *Watcher) sockets() (map[socketID]string, evidence) {
	found := map[socketID]string{}
	left := 0
	for _, path := range slices.Concat(w.config.EngineSockets, engine.Usual(), w.processes.sockets(), engine.Users()) {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			continue
		}
		id := socketID{dev: st.Dev, ino: st.Ino}
		switch {
		case found[id] != "":
		case len(found) == maxEngines:
			left++
		default:
			found[id] = path
		}
	}
	var surplus evidence
	if left > 0 {
		surplus.missed("engines", fmt.Errorf("%d more sockets than %d are not asked", left, maxEngines))
	}
	return found, surplus
}
