package watch

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// gather is how long after the first event a burst is one.
	gather = 20 * time.Millisecond
	// interval is how often is looked without an event.
	interval = time.Second
)

// Watcher follows files. Its methods may be called from any goroutine.
type Watcher struct {
	log     func(error)
	changed chan struct{}
	done    chan struct{}
	close   sync.Once
	running sync.WaitGroup

	events   notifier // nil when the system has none
	interest atomic.Pointer[map[string]bool]
	poke     chan struct{} // an event was of interest

	touched struct { // what events have said was written since the last look
		sync.Mutex
		names map[string]bool
	}

	mu      sync.Mutex
	paths   []string
	files   map[string]file
	watched map[string]fs.FileInfo // the directories that events were asked for
	told    bool                   // that there are no events; until there are again
}

// notifier is what is used of fsnotify.Watcher.
type notifier interface {
	Add(string) error
	Remove(string) error
	WatchList() []string
	Close() error
	Events() <-chan fsnotify.Event
	Errors() <-chan error
}

type system struct{ *fsnotify.Watcher }

func (s system) Events() <-chan fsnotify.Event { return s.Watcher.Events }
func (s system) Errors() <-chan error          { return s.Watcher.Errors }

func newSystem() (notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return system{w}, nil
}

// New follows the files at paths, which need not exist. What changes after New
// has returned wakes; so read them after it, not before. log hears, once, when
// the system gives no events and changes are seen only within a second. It must
// not call the Watcher.
func New(paths []string, log func(error)) *Watcher {
	return start(paths, log, newSystem, interval)
}

func start(paths []string, log func(error), events func() (notifier, error), interval time.Duration) *Watcher {
	w := &Watcher{
		log:     log,
		changed: make(chan struct{}, 1),
		done:    make(chan struct{}),
		poke:    make(chan struct{}, 1),
		files:   make(map[string]file),
		watched: make(map[string]fs.FileInfo),
	}
	w.touched.names = make(map[string]bool)
	w.interest.Store(&map[string]bool{})
	if n, err := events(); err != nil {
		w.tell(err)
	} else {
		w.events = n
		w.running.Go(w.take)
	}
	w.SetPaths(paths)
	w.running.Go(func() { w.run(interval) })
	return w
}

// Changed wakes when any of the files may have changed, appeared or disappeared.
// It is never closed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// SetPaths follows other files from now on. Like New it does not wake for a path
// that is new: read the file after it.
func (w *Watcher) SetPaths(paths []string) {
	absolute := make([]string, 0, len(paths))
	for _, path := range paths {
		if a, err := filepath.Abs(path); err == nil { // else there is no directory to be in
			path = a
		}
		absolute = append(absolute, path)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
		return
	default:
	}
	w.paths = absolute
	w.look()
}

// Close ends it. After that there are no wakes.
func (w *Watcher) Close() error {
	var err error
	w.close.Do(func() {
		close(w.done)
		w.running.Wait()
		if w.events != nil {
			err = w.events.Close()
		}
	})
	return err
}

// run looks, when events say so and by the clock.
func (w *Watcher) run(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-w.poke:
		case <-tick.C:
		}
		w.mu.Lock()
		w.look()
		w.mu.Unlock()
	}
}

// tell says once that changes are seen late, and why.
func (w *Watcher) tell(err error) {
	if w.told {
		return
	}
	w.told = true
	w.log(fmt.Errorf("files are looked at each %s, as the system does not tell of changes: %w", interval, err))
}
