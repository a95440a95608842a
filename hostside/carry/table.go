package carry

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Limits bound the associations of one link.
type Limits struct {
	// Associations is how many there may be. Default 8,192.
	Associations int
	// Idle is how long one lives without a datagram either way. Default 180 s,
	// what Linux's connection tracking gives a UDP stream.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Associations == 0 {
		l.Associations = 8192
	}
	if l.Idle == 0 {
		l.Idle = 180 * time.Second
	}
	return l
}

// key names an association: a client, and the address it sent to.
type key struct {
	socket *socket
	peer   netip.AddrPort
	local  netip.Addr
}

// association is one client of one socket.
type association struct {
	key  key
	flow *link.DatagramFlow
	// lastUse is in nanoseconds since the table began. Replies set it without
	// the table's lock.
	lastUse atomic.Int64
	place   *list.Element
	replies []udpbatch.Datagram // memory of the connection's reader
}

// table holds the associations of a link, the least recently used in front.
// Replies do not move an association in the order; eviction and expiry look at
// lastUse and do it then.
type table struct {
	limits Limits
	began  time.Time

	mu     sync.Mutex
	byKey  map[key]*association
	order  *list.List
	sweep  *time.Timer // runs only while there are associations
	closed bool
}

func newTable(limits Limits) *table {
	return &table{limits: limits, began: time.Now(), byKey: map[key]*association{}, order: list.New()}
}

func (t *table) now() int64 { return int64(time.Since(t.began)) }

// get finds or opens the association of a datagram. nil means that there is no
// session to open it on.
func (t *table) get(k key) *association {
	t.mu.Lock()
	if a := t.byKey[k]; a != nil && !a.flow.Closed() {
		a.lastUse.Store(t.now())
		t.order.MoveToBack(a.place)
		t.mu.Unlock()
		return a
	}
	t.mu.Unlock()

	a := &association{key: k}
	session := k.socket.carrier.current()
	if session == nil {
		return nil
	}
	flow, err := session.OpenDatagrams(k.peer, k.socket.guest, k.socket.affinity, k.socket.stats, a.reply,
		func(wire.Code) { t.drop(a) })
	if err != nil {
		return nil
	}
	a.flow = flow
	t.insert(a)
	return a
}

// insert adds an association and ends the one that has to go for it. Only one
// goroutine reads a socket, so no other can have added the same key.
func (t *table) insert(a *association) {
	t.mu.Lock()
	var evicted *association
	if over := t.byKey[a.key]; over != nil {
		t.remove(over) // its flow has ended
	}
	if t.order.Len() >= t.limits.Associations {
		evicted = t.leastRecent()
		t.remove(evicted)
	}
	a.lastUse.Store(t.now())
	a.place = t.order.PushBack(a)
	t.byKey[a.key] = a
	a.key.socket.associations++
	if t.sweep == nil && !t.closed {
		t.sweep = time.AfterFunc(t.limits.Idle, t.expire)
	}
	t.mu.Unlock()
	if evicted != nil {
		evicted.flow.Close(wire.CodeIdle)
	}
}

// leastRecent puts what replies have used since back in order, a bounded number
// of times, and gives the association in front. mu is held; there is one.
func (t *table) leastRecent() *association {
	for range 16 {
		front := t.order.Front().Value.(*association)
		next := t.order.Front().Next()
		if next == nil || front.lastUse.Load() <= next.Value.(*association).lastUse.Load() {
			return front
		}
		t.order.MoveToBack(front.place)
	}
	return t.order.Front().Value.(*association)
}

// expire ends the idle associations and comes back when the next may be due.
func (t *table) expire() {
	t.mu.Lock()
	var idle []*association
	oldest := t.now()
	limit := oldest - int64(t.limits.Idle)
	for e := t.order.Front(); e != nil; {
		a := e.Value.(*association)
		e = e.Next()
		if used := a.lastUse.Load(); used > limit {
			oldest = min(oldest, used)
			continue
		}
		t.remove(a)
		idle = append(idle, a)
	}
	t.sweep = nil
	if t.order.Len() > 0 && !t.closed {
		t.sweep = time.AfterFunc(max(time.Duration(oldest-limit), t.limits.Idle/8), t.expire)
	}
	t.mu.Unlock()
	for _, a := range idle {
		a.flow.Close(wire.CodeIdle)
	}
}

// remove takes an association out. mu is held.
func (t *table) remove(a *association) {
	if t.byKey[a.key] == a {
		delete(t.byKey, a.key)
		a.key.socket.associations--
		t.order.Remove(a.place)
	}
}

// drop forgets an association whose flow is over.
func (t *table) drop(a *association) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(a)
}

// dropSocket ends the associations of a socket.
func (t *table) dropSocket(s *socket) {
	t.mu.Lock()
	if s.associations == 0 {
		t.mu.Unlock()
		return
	}
	var ended []*association
	for k, a := range t.byKey {
		if k.socket == s {
			t.remove(a)
			ended = append(ended, a)
		}
	}
	t.mu.Unlock()
	for _, a := range ended {
		a.flow.Close(wire.CodeShutdown)
	}
}

func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	if t.sweep != nil {
		t.sweep.Stop()
	}
	all := make([]*association, 0, len(t.byKey))
	for _, a := range t.byKey {
		all = append(all, a)
		t.remove(a)
	}
	t.mu.Unlock()
	for _, a := range all {
		a.flow.Close(wire.CodeShutdown)
	}
}

// reply sends what the guest's service answered to the client. It runs on the
// reader of a link connection; a full socket buffer drops.
func (a *association) reply(payloads [][]byte) {
	a.lastUse.Store(a.key.socket.carrier.associations.now())
	ds := a.replies[:0]
	for _, p := range payloads {
		ds = append(ds, udpbatch.Datagram{Payload: p, Peer: a.key.peer, Local: a.key.local})
	}
	a.replies = ds
	sent, _ := a.key.socket.conn.WriteBatch(ds)
	clear(ds)
	if sent < len(ds) {
		a.key.socket.stats.DroppedDatagrams.Add(uint64(len(ds) - sent))
	}
}
