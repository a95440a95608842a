package forward

import "time"

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
