package forward

import (
	"context"
	"fmt"
	"time"

	"github.com/vmbridge/vmbridge/hostside/portowner"
)

// reportEvery is the least time between two rounds of reporting, so that a burst
// is told as one.
const reportEvery = 20 * time.Millisecond

// work retries what failed and tells what happened, until the engine closes.
// With nothing to do it sleeps.
func (e *Engine) work() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	book := newLogbook(e.log)
	var reported time.Time
	for {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return
		}
		now := time.Now()
		next := e.retryDue(now)
		tell := reported.Add(reportEvery)
		var lines []logLine
		if len(e.dirty) > 0 && !tell.After(now) {
			reported = now
			lines, tell = e.report(now)
		} else if len(e.dirty) == 0 {
			tell = time.Time{}
		}
		e.mu.Unlock()
		book.write(lines)

		if next.IsZero() || !tell.IsZero() && tell.Before(next) {
			next = tell
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), 0)
		}
		timer.Reset(wait)
		select {
		case <-e.ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
	}
}

// naming is a conflict whose owner is to be looked up.
type naming struct {
	claim    *claim
	conflict *conflict
}

// findTimeout bounds the look-up of owners; a conflict is told after it even
// without a name.
const findTimeout = 5 * time.Second

// nameOwners finds who holds the ports in conflict, all that have come together
// in one scan of the system.
func (e *Engine) nameOwners() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.lookUp:
		}
		e.mu.Lock()
		batch := e.unnamed
		e.unnamed = nil
		ports := make([]portowner.Port, len(batch))
		for i, n := range batch {
			ports[i] = portowner.Port{Protocol: string(n.claim.fwd.listener.Protocol), At: n.conflict.at}
		}
		e.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(e.ctx, findTimeout)
		owners, err := e.cfg.find(ctx, ports)
		cancel()
		if err != nil && e.ctx.Err() == nil {
			e.log.WithError(err).Debug("owners of ports are unknown")
		}
		e.change(func() {
			for i, n := range batch {
				if n.claim.conflict != n.conflict || n.conflict.named {
					continue // over, or another one
				}
				n.conflict.named = true
				var owner portowner.Owner
				if i < len(owners) {
					owner = owners[i]
				}
				n.claim.set(e, Conflict, fmt.Sprintf("%s %s is in use by %s", ports[i].Protocol, ports[i].At, owner))
				e.dirty[n.claim.fwd] = struct{}{}
			}
		})
	}
}
