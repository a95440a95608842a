package listeners

import (
	"context"
	"errors"
	"sync"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// ErrClosed is returned by Watch.Next after Close, and when the tracker ended.
var ErrClosed = errors.New("the watch on listeners is closed")

// table holds what is published, and the watches that follow it.
type table struct {
	limit int // of listeners per protocol

	mu      sync.Mutex
	ready   bool
	closed  bool
	current map[message.Key]message.Listener
	count   map[message.Protocol]int
	// over holds the listeners beyond the limit, which move up when others go.
	over    map[message.Key]message.Listener
	watches map[*Watch]struct{}
}

func newTable(limit int) *table {
	return &table{
		limit:   limit,
		current: map[message.Key]message.Listener{},
		count:   map[message.Protocol]int{},
		over:    map[message.Key]message.Listener{},
		watches: map[*Watch]struct{}{},
	}
}

// publish makes listeners the state of their keys and removes the keys in gone,
// at once for every watch. It gives the number of listeners over the limit.
func (t *table) publish(listeners []message.Listener, gone []message.Key) (over int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	overBefore := len(t.over)
	room := false
	for _, k := range gone {
		delete(t.over, k)
		if _, ok := t.current[k]; ok {
			t.touch(k, true)
			delete(t.current, k)
			t.count[k.Protocol]--
			room = true
		}
	}
	for _, l := range listeners {
		t.set(l)
	}
	if room {
		for k, l := range t.over {
			if t.count[k.Protocol] < t.limit {
				delete(t.over, k)
				t.set(l)
			}
		}
	}
	for w := range t.watches {
		w.overChanged = w.overChanged || len(t.over) != overBefore
		if w.overChanged || w.reset || len(w.changed) > 0 {
			poke(w.wake)
		}
	}
	return len(t.over)
}

// open lets the watches have what is published.
func (t *table) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = true
	for w := range t.watches {
		poke(w.wake)
	}
}

func (t *table) set(l message.Listener) {
	old, known := t.current[l.Key]
	switch {
	case known && old == l:
		return
	case !known && t.count[l.Protocol] >= t.limit:
		t.over[l.Key] = l
		return
	case !known:
		delete(t.over, l.Key)
		t.count[l.Protocol]++
	}
	t.touch(l.Key, known)
	t.current[l.Key] = l
}

// touch notes in every watch that a key changes; known tells whether it was
// published before.
func (t *table) touch(k message.Key, known bool) {
	for w := range t.watches {
		if _, ok := w.changed[k]; !ok && !w.reset {
			w.changed[k] = known
		}
	}
}

// close ends every watch.
func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for w := range t.watches {
		w.end()
	}
}

// Watch follows the listeners from a snapshot on. One goroutine may use it at a
// time, besides Close.
type Watch struct {
	table *table
	wake  chan struct{} // of capacity 1
	done  chan struct{}

	// The rest is the table's, under its lock.
	closed      bool
	reset       bool // the snapshot was not taken yet
	overChanged bool
	// changed holds the keys that changed since the last Next, and whether the
	// watcher was told of them before.
	changed map[message.Key]bool
}

func (t *table) watch() *Watch {
	w := &Watch{
		table:   t,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		reset:   true,
		changed: map[message.Key]bool{},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watches[w] = struct{}{}
	if t.closed {
		w.end()
	}
	poke(w.wake)
	return w
}

// Next gives what changed since the last call: the first time a snapshot with
// Reset set, as soon as the kernel has been asked for the first time, later
// differences. It waits until there are any. An Add of a known key is a change
// of its owner. Everything that happened between two calls is joined, so a slow
// reader costs no memory beyond one entry per key. The message may exceed
// message.MaxListenersPerMessage: splitting it is up to the sender.
func (w *Watch) Next(ctx context.Context) (message.Listeners, error) {
	for {
		select {
		case <-ctx.Done():
			return message.Listeners{}, ctx.Err()
		case <-w.done:
			return message.Listeners{}, ErrClosed
		case <-w.wake:
		}
		if l, ok := w.take(); ok {
			return l, nil
		}
	}
}

func (w *Watch) take() (message.Listeners, bool) {
	t := w.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready || w.closed {
		return message.Listeners{}, false
	}
	l := message.Listeners{Reset: w.reset, Dropped: len(t.over)}
	if w.reset {
		l.Add = make([]message.Listener, 0, len(t.current))
		for _, listener := range t.current {
			l.Add = append(l.Add, listener)
		}
	}
	for k, known := range w.changed {
		if listener, ok := t.current[k]; ok {
			l.Add = append(l.Add, listener)
		} else if known {
			l.Remove = append(l.Remove, k)
		}
	}
	news := w.reset || w.overChanged || len(l.Add) > 0 || len(l.Remove) > 0
	w.reset, w.overChanged = false, false
	clear(w.changed)
	return l, news
}

// Close ends the watch. It is idempotent, and makes Next return ErrClosed.
func (w *Watch) Close() error {
	w.table.mu.Lock()
	defer w.table.mu.Unlock()
	w.end()
	return nil
}

// end is called with the table's lock held.
func (w *Watch) end() {
	if !w.closed {
		w.closed = true
		close(w.done)
		delete(w.table.watches, w)
	}
}

// poke sends to a channel of capacity 1 unless something waits there already.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
