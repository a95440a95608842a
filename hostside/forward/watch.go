package forward

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Change is news of one forward: how it is now, or that it is gone.
type Change struct {
	Forward Forward
	Gone    bool
}

// ErrWatchEnded is returned by Next after Close of watcher or engine.
var ErrWatchEnded = errors.New("watch ended")

// Watcher collects changes for one reader. A slow reader costs no more than the
// number of forwards: of each, only the latest news is kept.
type Watcher struct {
	engine *Engine
	ready  chan struct{}

	mu    sync.Mutex
	news  map[watchKey]int // index into queue
	queue []Change
	ended bool
}

type watchKey struct {
	link string
	key  message.Key
}

// Watch follows the forwards: first those that are there, then every change.
func (e *Engine) Watch() *Watcher {
	w := &Watcher{engine: e, ready: make(chan struct{}, 1), news: make(map[watchKey]int)}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		w.end()
		return w
	}
	e.watchers[w] = struct{}{}
	var present []Change
	for _, l := range e.links {
		for _, f := range l.forwards {
			// What is dirty comes with the next report, when it may be mentioned.
			if _, soon := e.dirty[f]; !soon && !f.plan.hidden && !f.mentionAt().After(now) {
				present = append(present, Change{Forward: f.snapshot()})
			}
		}
	}
	w.put(present)
	return w
}

// Next waits for changes and returns all that have come, oldest first.
func (w *Watcher) Next(ctx context.Context) ([]Change, error) {
	for {
		w.mu.Lock()
		out, ended := w.queue, w.ended
		w.queue = nil
		clear(w.news)
		w.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		if ended {
			return nil, ErrWatchEnded
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.ready:
		}
	}
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.engine.mu.Lock()
	delete(w.engine.watchers, w)
	w.engine.mu.Unlock()
	w.end()
}

func (w *Watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	signal(w.ready)
}

// put adds changes that the reader gets together.
func (w *Watcher) put(changes []Change) {
	if len(changes) == 0 {
		return
	}
	w.mu.Lock()
	for _, c := range changes {
		k := watchKey{c.Forward.Link, c.Forward.Key()}
		if i, ok := w.news[k]; ok {
			w.queue[i] = c
		} else {
			w.news[k] = len(w.queue)
			w.queue = append(w.queue, c)
		}
	}
	w.mu.Unlock()
	signal(w.ready)
}
