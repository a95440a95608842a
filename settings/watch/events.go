package watch

import (
	"maps"
	"runtime"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// yields is how often another goroutine may run, and no event has come, before
// there is taken to be none.
const yields = 20

// aside is how long events are left with the system while one after the other is
// about another file.
const aside = 2 * gather

// take takes events. After the first it waits, so that a burst is one reason to
// look, and so that a busy file costs its neighbours little: the system keeps
// one event of many that are the same.
func (w *Watcher) take() {
	timer := time.NewTimer(0)
	<-timer.C
	var busy time.Time // when the last events were taken, if all were about others
	for {
		var look bool
		select {
		case <-w.done:
			return
		case e := <-w.events.Events():
			look = w.concerns(e)
		case <-w.events.Errors():
			look = true // events were lost
		}
		pause := gather
		if !look && time.Since(busy) < gather {
			pause = aside
		}
		timer.Reset(pause)
		select {
		case <-w.done:
			return
		case <-timer.C:
		}
		look = w.drain() || look
		if busy = time.Now(); look {
			busy = time.Time{}
		}
		if look {
			select {
			case w.poke <- struct{}{}:
			default:
			}
		}
	}
}

// drain takes what has come meanwhile. It does not wait for more; it only lets
// the one run who hands over the next event, if there is one.
func (w *Watcher) drain() (look bool) {
	for idle := 0; idle < yields; {
		select {
		case e := <-w.events.Events():
			look, idle = w.concerns(e) || look, 0
		case <-w.events.Errors():
			look, idle = true, 0
		case <-w.done:
			return look
		default:
			idle++
			runtime.Gosched()
		}
	}
	return look
}

// concerns says if an event may be about the files, and remembers what was
// written.
func (w *Watcher) concerns(e fsnotify.Event) bool {
	name := fold(e.Name)
	if !(*w.interest.Load())[name] {
		return false
	}
	if e.Has(fsnotify.Write) || e.Has(fsnotify.Create) {
		w.touched.Lock()
		w.touched.names[name] = true
		w.touched.Unlock()
	}
	return true
}

// takeTouched gives what was written since it was asked the last time.
func (w *Watcher) takeTouched() map[string]bool {
	w.touched.Lock()
	defer w.touched.Unlock()
	names := maps.Clone(w.touched.names)
	clear(w.touched.names)
	return names
}

// fold makes one name of those that are one on some systems. Where they are two,
// one may cause a look too many.
func fold(name string) string { return strings.ToLower(name) }
