package udpbatch

import (
	"runtime"
	"sync"
)

// Pool lends the memory that a batch of datagrams is read into. A Conn borrows
// it once its socket is readable and returns it when the batch has been dealt
// with, so that a pool of a few serves any number of idle sockets.
type Pool struct {
	limit int

	mu   sync.Mutex
	cond sync.Cond
	idle []*arena // a stack: the one used last is the one in the cache
	lent int

	senders sync.Pool // of *sender
}

// NewPool makes a pool of at most limit batches at once; further readers wait
// for one. Zero stands for twice the number of processors in use. A batch
// takes about 300 KiB, or as much as its datagrams, up to 4 MiB.
func NewPool(limit int) *Pool {
	if limit <= 0 {
		limit = 2 * runtime.GOMAXPROCS(0)
	}
	p := &Pool{limit: limit}
	p.cond.L = &p.mu
	p.senders.New = func() any { return newSender() }
	return p
}

// borrow returns an arena, which the caller owns until it gives it back.
func (p *Pool) borrow() (*arena, error) {
	p.mu.Lock()
	for len(p.idle) == 0 && p.lent == p.limit {
		p.cond.Wait()
	}
	p.lent++
	if n := len(p.idle); n > 0 {
		a := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return a, nil
	}
	p.mu.Unlock()
	a, err := newArena()
	if err != nil {
		p.mu.Lock()
		p.lent--
		p.cond.Signal()
		p.mu.Unlock()
	}
	return a, err
}

func (p *Pool) giveBack(a *arena) {
	a.trim()
	p.mu.Lock()
	p.idle = append(p.idle, a)
	p.lent--
	p.cond.Signal()
	p.mu.Unlock()
}
