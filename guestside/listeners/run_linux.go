package listeners

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Run tracks until ctx ends, and then releases everything; the error is that of
// ctx, or of the release. A Tracker runs once.
func (t *Tracker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { t.owners.Run(ctx) })
	if source := t.source; source != nil {
		helpers.Go(func() { t.waitEvents(source) })
	}
	if destroyed := t.destroyed; destroyed != nil {
		helpers.Go(func() { t.waitDestroyed(destroyed) })
	}
	t.loop(ctx)
	err := ctx.Err()
	cancel()
	wakeErr := t.closeWake()
	helpers.Wait()
	return errors.Join(err, wakeErr, t.Close())
}

// loop waits for what is due and does it.
func (t *Tracker) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var news news
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.news.wake:
			t.news.take(&news)
			t.planFor(&news, time.Now())
		case <-t.owners.Updates():
			t.renameContainers()
			t.publish()
		case <-timer.C:
		}
		for _, p := range t.protocols {
			if !p.plan.next().After(time.Now()) {
				t.look(ctx, p)
			}
		}
		t.openTable()
		next := t.tcp().plan.next()
		if udp := t.udp().plan.next(); udp.Before(next) {
			next = udp
		}
		timer.Reset(time.Until(next))
	}
}

// openTable lets watches have their snapshot once it is complete: when the
// kernel was asked for both protocols, and the UDP sockets that it showed have
// turned out to be old enough. A host that is told half of it would close
// forwards that it had.
func (t *Tracker) openTable() {
	tcp, udp := t.tcp(), t.udp()
	if !t.ready && tcp.looks > 0 && udp.looks > 0 && (udp.looks > 1 || len(udp.waiting) == 0) {
		t.ready = true
		t.table.open()
	}
}

// distantDelay is how soon it is noticed that a thread of another network
// namespace closed a socket of ours. Nearly always it was one of its own with
// the same port.
const distantDelay = time.Second

// planFor turns news into plans.
func (t *Tracker) planFor(n *news, now time.Time) {
	tcp, udp := t.tcp(), t.udp()
	for _, g := range n.gone {
		for _, p := range t.protocols {
			if p.has(g) {
				n.tcp, n.udp = n.tcp || p == tcp, n.udp || p == udp
			}
		}
	}
	if slices.ContainsFunc(n.distant, tcp.has) {
		tcp.plan.at(now.Add(distantDelay))
	}
	for _, cookie := range n.closed {
		// Most are sockets that were too young to be reported.
		if s, ok := udp.sockets[cookie]; ok && s.reported {
			n.udp = true
		}
	}
	if n.tcp {
		tcp.plan.wake(now)
	}
	if n.udp {
		udp.plan.wake(now)
	}
	if n.bound {
		// Nothing is to be seen before the socket is old enough.
		udp.lastBind = now
		udp.plan.at(now.Add(settleTime))
	}
}

// publish brings the published state of all dirty keys up to date.
func (t *Tracker) publish() {
	var add []message.Listener
	var gone []message.Key
	for k := range t.dirty {
		if sockets := t.groups[k]; len(sockets) > 0 {
			add = append(add, listenerOf(k, sockets))
		} else {
			gone = append(gone, k)
		}
	}
	clear(t.dirty)
	over := t.table.publish(add, gone)
	if over > 0 && !t.limited {
		t.log.WithField("limit", t.table.limit).Warn("more listeners than the limit: the rest is not reported")
	}
	t.limited = over > 0
}
