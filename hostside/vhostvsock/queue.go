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

	mu     sync.Mutex
	conns  []*Conn // a ring: first is at start, count of them
	start  int
	count  int
	resets map[header]struct{}
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), resets: make(map[header]struct{})}
}

// add gives the connection a turn.
func (q *queue) add(c *Conn) {
	q.mu.Lock()
	if !c.queued {
		c.queued = true
		q.push(c)
	}
	q.mu.Unlock()
	q.poke()
}

func (q *queue) push(c *Conn) {
	if q.count == len(q.conns) {
		bigger := make([]*Conn, max(64, 2*len(q.conns)))
		n := copy(bigger, q.conns[q.start:])
		copy(bigger[n:], q.conns[:q.start])
		q.conns, q.start = bigger, 0
	}
	q.conns[(q.start+q.count)%len(q.conns)] = c
	q.count++
}

// take gives the connection whose turn it is.
func (q *queue) take() *Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == 0 {
		return nil
	}
	c := q.conns[q.start]
	q.conns[q.start] = nil
	q.start = (q.start + 1) % len(q.conns)
	q.count--
	c.queued = false
	return c
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
	return q.count == 0 && len(q.resets) == 0
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
