package forward

import (
	"container/heap"
	"time"
)

// How long until a refused bind is tried again. A failing bind costs about 12
// microseconds, so with very many of them the wait grows, and stays under the
// 2 s within which a port that became free must be ours.
const (
	retryConflict = 500 * time.Millisecond
	retryCrowded  = 1500 * time.Millisecond
	retrySlow     = 5 * time.Second // what only a change of the system can help
	crowd         = 1000            // groups
	crowdCarried  = 50              // groups; those of a product's ports stay for days
	retryBatch    = 200             // groups settled under one hold of the lock
)

// retryAt settles the group again after the wait, or sooner when it has already
// been asked for.
func (e *Engine) retryAt(g *group, wait time.Duration) {
	if wait == retryConflict && len(e.retries.heap) > crowd {
		wait = retryCrowded
	}
	if at := time.Now().Add(wait); g.retry.IsZero() || at.Before(g.retry) {
		g.retry = at
	}
	e.retries.update(g)
}

// retryDue settles groups whose time has come, and says when to come back: zero
// for never.
func (e *Engine) retryDue(now time.Time) time.Time {
	for range retryBatch {
		g := e.retries.first()
		if g == nil {
			return time.Time{}
		}
		if g.retry.After(now) {
			return g.retry
		}
		e.settle(g)
	}
	return now
}

// retryQueue orders groups by the time of their retry.
type retryQueue struct{ heap retryHeap }

func (q *retryQueue) first() *group {
	if len(q.heap) == 0 {
		return nil
	}
	return q.heap[0]
}

// update brings the place of a group in line with its retry time.
func (q *retryQueue) update(g *group) {
	switch in := g.heapIndex >= 0; {
	case in && g.retry.IsZero():
		heap.Remove(&q.heap, g.heapIndex)
	case in:
		heap.Fix(&q.heap, g.heapIndex)
	case !g.retry.IsZero():
		heap.Push(&q.heap, g)
	}
}

// retryHeap is a heap.Interface.
type retryHeap []*group

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].retry.Before(h[j].retry) }
func (h retryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

func (h *retryHeap) Push(x any) {
	g := x.(*group)
	g.heapIndex = len(*h)
	*h = append(*h, g)
}

func (h *retryHeap) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.heapIndex = -1
	return g
}
