package owner

import (
	"context"
	"sync"
	"time"
)

// Container is a container as far as it is known.
type Container struct {
	ID, Name, Image string
}

const (
	// maxNames bounds the containers that are remembered; all are forgotten
	// when there are more, and asked for again when they come up.
	maxNames = 1024
	// askTimeout bounds the search for one container over all engines.
	askTimeout = 3 * time.Second
	// askTries and askAgain bound the search for a container that nobody knows:
	// the engine may be starting, or none of ours.
	askTries = 5
	askAgain = 2 * time.Second
)

// names remembers the names of containers and asks for those it does not know.
type names struct {
	engines engines
	updates chan struct{} // of capacity 1
	wanted  chan struct{} // of capacity 1

	mu    sync.Mutex
	known map[string]*nameEntry
}

type nameEntry struct {
	Container
	tries int       // left; 0 when the search is over
	next  time.Time // of the next try
}

func newNames(sockets []string) *names {
	return &names{
		engines: engines{configured: sockets},
		updates: make(chan struct{}, 1),
		wanted:  make(chan struct{}, 1),
		known:   map[string]*nameEntry{},
	}
}

// get gives what is known of a container now, and has it looked for.
func (n *names) get(id string) Container {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e, ok := n.known[id]; ok {
		return e.Container
	}
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	n.known[id] = &nameEntry{Container: Container{ID: id}, tries: askTries}
	poke(n.wanted)
	return Container{ID: id}
}

// run looks for containers until ctx ends.
func (n *names) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wanted:
		case <-timer.C:
		}
		for {
			id, wait := n.due(time.Now())
			if id == "" {
				timer.Reset(wait)
				break
			}
			n.ask(ctx, id)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// due gives a container to look for now, or else how long there is none.
func (n *names) due(now time.Time) (id string, wait time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait = time.Hour
	for id, e := range n.known {
		if e.tries == 0 {
			continue
		}
		if until := e.next.Sub(now); until > 0 {
			wait = min(wait, until)
			continue
		}
		return id, 0
	}
	return "", wait
}

// ask looks for one container and notes the result.
func (n *names) ask(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, ok := n.engines.find(ctx, id)

	n.mu.Lock()
	defer n.mu.Unlock()
	e, wanted := n.known[id]
	switch {
	case !wanted:
	case ok:
		e.Container, e.tries = c, 0
		poke(n.updates)
	default:
		e.tries--
		e.next = time.Now().Add(askAgain)
	}
}

// poke sends to a channel of capacity 1 unless something waits there already.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
