package vhostvsock

import "sync"

// maxResets bounds the answers to packets that belong to no connection. More are
// dropped: the guest then waits for its own timeouts. Waiting for the guest
// instead could meet its driver, which stops reading as well when too many
// answers of its own wait.
const maxResets = 4096

// queue holds what has something to tell the guest: connections, which take
// turns of one packet each, and answers that no connection stands for.
type queue struct {
	wake chan struct{}

	mu          sync.Mutex
	first, last *Conn // a list, by Conn.before and Conn.behind
	resets      map[header]struct{}
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), resets: make(map[header]struct{})}
}

// add gives the connection a turn.
func (q *queue) add(c *Conn) {
	q.mu.Lock()
	if !c.queued {
		c.queued, c.before = true, q.last
		if q.last == nil {
			q.first = c
		} else {
			q.last.behind = c
		}
		q.last = c
	}
	q.mu.Unlock()
	q.poke()
}

// take gives the connection whose turn it is.
func (q *queue) take() *Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.first
	if c != nil {
		q.unlink(c)
	}
	return c
}

// remove takes its turn from a connection that has nothing to tell any more. A
// guest that takes nothing would have it kept otherwise.
func (q *queue) remove(c *Conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.queued {
		q.unlink(c)
	}
}

func (q *queue) unlink(c *Conn) {
	if c.before == nil {
		q.first = c.behind
	} else {
		c.before.behind = c.behind
	}
	if c.behind == nil {
		q.last = c.before
	} else {
		c.behind.before = c.before
	}
	c.queued, c.before, c.behind = false, nil, nil
}

// refuse answers a packet that has no connection.
func (q *queue) refuse(h header) {
	q.mu.Lock()
	if len(q.resets) < maxResets {
		q.resets[h] = struct{}{}
	}
	q.mu.Unlock()
	q.poke()
}

func (q *queue) takeReset() (header, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for h := range q.resets {
		delete(q.resets, h)
		return h, true
	}
	return header{}, false
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.first == nil && len(q.resets) == 0
}

// clearResets forgets the answers, when there is another guest.
func (q *queue) clearResets() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.resets)
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
