package association

import (
	"cmp"
	"container/list"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Limits bound the associations of a table.
type Limits struct {
	// Associations is how many there may be. Default 8,192.
	Associations int
	// Idle is how long one lives without a datagram either way. Default 180 s,
	// what Linux's connection tracking gives a UDP stream.
	Idle time.Duration
}

const (
	defaultAssociations = 8192
	defaultIdle         = 180 * time.Second
)

// Association is one client. Its flow is set when Open returns.
type Association[K comparable] struct {
	Key  K
	Flow *link.DatagramFlow

	table *Table[K]
	// lastUse is in nanoseconds since the table began. Replies set it without
	// the table's lock.
	lastUse atomic.Int64
	place   *list.Element
	over    bool // the flow ended before it was in the table
}

// Used notes that there was a reply.
func (a *Association[K]) Used() { a.lastUse.Store(a.table.now()) }

// Ended forgets an association whose flow is over. It is for the function that
// the flow tells so.
func (a *Association[K]) Ended() {
	t := a.table
	t.mu.Lock()
	defer t.mu.Unlock()
	a.over = true
	t.remove(a)
}

// Table holds associations by key, the least recently used in front.
type Table[K comparable] struct {
	most    int // associations
	began   time.Time
	removed func(K)

	mu     sync.Mutex
	idle   time.Duration
	byKey  map[K]*Association[K]
	order  *list.List
	sweep  *time.Timer // runs only while there are associations
	closed bool
}

// New returns an empty table. removed, when not nil, is told the key of every
// association that was opened and is over; it runs under the table's lock and
// must not block. Close ends the table's housekeeping.
func New[K comparable](limits Limits, removed func(K)) *Table[K] {
	if removed == nil {
		removed = func(K) {}
	}
	return &Table[K]{
		most: cmp.Or(limits.Associations, defaultAssociations), idle: cmp.Or(limits.Idle, defaultIdle),
		began: time.Now(), removed: removed,
		byKey: map[K]*Association[K]{}, order: list.New(),
	}
}

// SetIdle changes how long an association lives without a datagram; 0 is the
// default. It holds for those that are open, from their last datagram on.
func (t *Table[K]) SetIdle(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = cmp.Or(d, defaultIdle)
	if t.sweep != nil {
		t.sweep.Reset(0) // it finds out anew when the next is due
	}
}

func (t *Table[K]) now() int64 { return int64(time.Since(t.began)) }

// Get finds the association of a datagram, or nil.
func (t *Table[K]) Get(k K) *Association[K] {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.byKey[k]
	if a == nil || a.Flow.Closed() {
		return nil
	}
	a.lastUse.Store(t.now())
	t.order.MoveToBack(a.place)
	return a
}

// Open makes the association of a key, with the flow that open opens; it ends
// the one that the key had before, and the one that has to go for want of room,
// in the table or on the link.
func (t *Table[K]) Open(k K, open func(*Association[K]) (*link.DatagramFlow, error)) (*Association[K], error) {
	a := &Association[K]{Key: k, table: t}
	flow, err := open(a)
	if errors.Is(err, link.ErrTooManyFlows) && t.evict() {
		flow, err = open(a)
	}
	if err != nil {
		return nil, err
	}
	a.Flow = flow
	t.insert(a)
	return a, nil
}

func (t *Table[K]) insert(a *Association[K]) {
	t.mu.Lock()
	if a.over || t.closed {
		t.removed(a.Key)
		t.mu.Unlock()
		a.Flow.Close(wire.CodeShutdown)
		return
	}
	var ended []*Association[K]
	if before := t.byKey[a.Key]; before != nil {
		t.remove(before)
		ended = append(ended, before)
	}
	if t.order.Len() >= t.most {
		least := t.leastRecent()
		t.remove(least)
		ended = append(ended, least)
	}
	a.lastUse.Store(t.now())
	a.place = t.order.PushBack(a)
	t.byKey[a.Key] = a
	if t.sweep == nil {
		t.sweep = time.AfterFunc(t.idle, t.expire)
	}
	t.mu.Unlock()
	closeFlows(ended, wire.CodeIdle)
}

// evict ends the least recently used association, if there is one.
func (t *Table[K]) evict() bool {
	t.mu.Lock()
	if t.order.Len() == 0 {
		t.mu.Unlock()
		return false
	}
	least := t.leastRecent()
	t.remove(least)
	t.mu.Unlock()
	least.Flow.Close(wire.CodeIdle)
	return true
}

// leastRecent puts what replies have used since back in order, a bounded number
// of times, and gives the association in front. mu is held; there is one.
func (t *Table[K]) leastRecent() *Association[K] {
	for range 16 {
		front := t.order.Front().Value.(*Association[K])
		next := t.order.Front().Next()
		if next == nil || front.lastUse.Load() <= next.Value.(*Association[K]).lastUse.Load() {
			return front
		}
		t.order.MoveToBack(front.place)
	}
	return t.order.Front().Value.(*Association[K])
}

// expire ends the idle associations and comes back when the next may be due.
func (t *Table[K]) expire() {
	t.mu.Lock()
	var idle []*Association[K]
	oldest := t.now()
	limit := oldest - int64(t.idle)
	for e := t.order.Front(); e != nil; {
		a := e.Value.(*Association[K])
		e = e.Next()
		if used := a.lastUse.Load(); used > limit {
			oldest = min(oldest, used)
			continue
		}
		t.remove(a)
		idle = append(idle, a)
	}
	if t.sweep != nil {
		t.sweep.Stop() // SetIdle may have started it again
	}
	t.sweep = nil
	if t.order.Len() > 0 && !t.closed {
		t.sweep = time.AfterFunc(max(time.Duration(oldest-limit), t.idle/8), t.expire)
	}
	t.mu.Unlock()
	closeFlows(idle, wire.CodeIdle)
}

// remove takes an association out. mu is held.
func (t *Table[K]) remove(a *Association[K]) {
	if t.byKey[a.Key] == a {
		delete(t.byKey, a.Key)
		t.order.Remove(a.place)
		t.removed(a.Key)
	}
}

// CloseKeys ends the associations whose key matches.
func (t *Table[K]) CloseKeys(matches func(K) bool) {
	t.mu.Lock()
	ended := t.take(matches)
	t.mu.Unlock()
	closeFlows(ended, wire.CodeShutdown)
}

// Close ends all associations, and those that are opened later at once.
func (t *Table[K]) Close() {
	t.mu.Lock()
	t.closed = true
	if t.sweep != nil {
		t.sweep.Stop()
	}
	all := t.take(func(K) bool { return true })
	t.mu.Unlock()
	closeFlows(all, wire.CodeShutdown)
}

// take takes out the associations whose key matches. mu is held.
func (t *Table[K]) take(matches func(K) bool) []*Association[K] {
	var taken []*Association[K]
	for k, a := range t.byKey {
		if matches(k) {
			t.remove(a)
			taken = append(taken, a)
		}
	}
	return taken
}

func closeFlows[K comparable](as []*Association[K], code wire.Code) {
	for _, a := range as {
		a.Flow.Close(code)
	}
}
