package isolation

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/guestside/engine"
)

// followed is a socket that an engine is behind, or may be.
type followed struct {
	watcher   *Watcher
	socket    string
	asked     chan struct{} // closed after the first answer, or without one
	askedOnce sync.Once
	answers   answers // belongs to the goroutine that follows

	// The watcher's mu guards what follows.
	evidence  evidence
	cancel    context.CancelFunc // nil while nothing follows
	began     time.Time          // when it was last started to follow
	activated bool               // a service manager starts the engine
	pause     time.Duration      // before the next try
	next      time.Time          // when that is
}

var errNotYet = errors.New("it has not answered yet")

func newFollowed(w *Watcher, socket string) *followed {
	f := &followed{watcher: w, socket: socket, asked: make(chan struct{})}
	f.evidence.missed("engine at "+socket, errNotYet)
	return f
}

// start starts to follow when that is due. begun says that an engine has just
// begun, runs that there is one at all.
func (f *followed) start(ctx context.Context, now time.Time, begun, runs bool) bool {
	w := f.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.cancel != nil {
		return false
	}
	if f.activated && !runs {
		// To connect would start the engine, which somebody may have stopped.
		f.evidence = evidence{}
		return false
	}
	if begun {
		f.pause, f.next = 0, time.Time{}
	}
	if now.Before(f.next) {
		return false
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.began = now
	w.work.Go(func() { f.ended(f.follow(ctx)) })
	return true
}

// stop ends following: the socket is gone.
func (f *followed) stop() {
	f.watcher.mu.Lock()
	defer f.watcher.mu.Unlock()
	if f.cancel != nil {
		f.cancel()
	}
}

// ended notes why following has ended, and when to try again.
func (f *followed) ended(err error) {
	w := f.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	f.cancel()
	f.cancel = nil
	now := time.Now()
	if now.Sub(f.began) >= askAgainAtLeast {
		f.pause = 0 // it did answer
	}
	f.next = now.Add(f.pause)
	f.pause = min(max(2*f.pause, askAgain), askAgainAtLeast)
	switch {
	case errors.Is(err, engine.ErrNone):
		f.evidence, f.pause = evidence{}, askAgain
	case errors.Is(err, engine.ErrEnded), errors.Is(err, context.Canceled):
	default:
		f.evidence.incomplete = nil
		f.evidence.missed("engine at "+f.socket, err)
	}
	w.settle()
}

// tell replaces what is known of the engine.
func (f *followed) tell(now evidence) {
	w := f.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	f.evidence = now
	w.settle()
}

// settle is how long an engine is left alone after it was asked, and before it is
// asked once more: events come in bursts.
const settle = 200 * time.Millisecond

// filters select the events that change an answer, by all their names: a
// container's end is "die" in Docker, and "exited" or "died" in Podman.
var filters = map[string][]string{
	"type":  {"daemon", "container"},
	"event": {"reload", "start", "die", "died", "exited"},
}

// follow asks the engine, and again after each event, until it ends.
func (f *followed) follow(ctx context.Context) error {
	since := time.Now()
	err := f.ask(ctx, askAll)
	f.askedOnce.Do(func() { close(f.asked) })
	if err != nil {
		return err
	}
	f.isActivated(engine.Activated(ctx, f.socket))

	ctx, cancel := context.WithCancel(ctx)
	var stream sync.WaitGroup
	defer stream.Wait()
	defer cancel()
	var changed atomic.Uint32 // questions
	wake := make(chan struct{}, 1)
	ended := make(chan error, 1)
	stream.Go(func() {
		// What happened since the first question is told, so nothing is missed.
		ended <- engine.Follow(ctx, f.socket, since, filters, func(e engine.Event) {
			changed.Or(uint32(questionsAfter(e)))
			select {
			case wake <- struct{}{}:
			default: // it will wake
			}
		})
	})
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-wake:
		}
		what := questions(changed.Swap(0))
		if err := f.ask(ctx, what); err != nil {
			return err
		}
		pause.Reset(settle)
		select {
		case err := <-ended:
			return err
		case <-pause.C:
		}
		// Docker tells of a container's end a moment before its list of those that
		// run does, and nothing more after that.
		if err := f.ask(ctx, what|questions(changed.Swap(0))); err != nil {
			return err
		}
	}
}

func (f *followed) isActivated(activated bool) {
	f.watcher.mu.Lock()
	defer f.watcher.mu.Unlock()
	f.activated = activated
}
