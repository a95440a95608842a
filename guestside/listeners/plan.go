package listeners

import "time"

const (
	// After a wake-up there are dumps at once, 1, 20 and 200 ms later. At once,
	// because the kernel shows a new listener within microseconds of announcing
	// it, while waiting for other events of a burst would cost a millisecond,
	// the resolution of timers. Later, because the thread may be preempted
	// between announcement and listener.
	followUp0 = 1 * time.Millisecond
	followUp1 = 20 * time.Millisecond
	followUp2 = 200 * time.Millisecond

	// The work on dumps may take one part in busyShare of the time, beyond a
	// burst of burst: single events are served at once, a storm shares dumps.
	busyShare = 4
	burst     = 5 * time.Millisecond

	// pollInterval is the period without wake-ups. A long dump makes it longer,
	// so that polling takes one part in pollShare of the time.
	pollInterval = 250 * time.Millisecond
	pollShare    = 20
	// With wake-ups the period serves for what no event announces, such as a UDP
	// socket that gives up its peer. It lies between the bounds
	// and grows with the work: 10,000 listeners, whose owners are looked at as
	// well, take 35 ms.
	minimumSafety = 2 * time.Second
	maximumSafety = 60 * time.Second
	safetyShare   = 1000
)

// plan says when the next dump of one protocol is due.
type plan struct {
	polled bool // there are no wake-ups

	due       [4]time.Time // zero when not planned; the first is for anything
	periodic  time.Time
	notBefore time.Time

	credit   time.Duration // how long dumps may take at once
	credited time.Time     // when credit was computed
}

// wake plans the dumps that follow an event.
func (p *plan) wake(now time.Time) {
	p.at(now)
	p.due[1], p.due[2], p.due[3] = now.Add(followUp0), now.Add(followUp1), now.Add(followUp2)
}

// at plans a dump at t or before.
func (p *plan) at(t time.Time) {
	if p.due[0].IsZero() || t.Before(p.due[0]) {
		p.due[0] = t
	}
}

// next gives when the next dump is due. There always is one.
func (p *plan) next() time.Time {
	t := p.periodic
	for _, d := range p.due {
		if !d.IsZero() && d.Before(t) {
			t = d
		}
	}
	if t.Before(p.notBefore) {
		t = p.notBefore
	}
	return t
}

// begin notes that a dump begins now: it serves all that was due. Periodic
// tells whether the periodic one was, which other dumps do not put off: more is
// done at it.
func (p *plan) begin(now time.Time) (periodic bool) {
	for i := range p.due {
		if !p.due[i].After(now) {
			p.due[i] = time.Time{}
		}
	}
	if p.periodic.After(now) {
		return false
	}
	p.periodic = time.Time{}
	return true
}

// end notes that the work on a dump ended now: the dump took d, all took work.
func (p *plan) end(now time.Time, d, work time.Duration) {
	if p.credited.IsZero() {
		p.credit = burst
	} else {
		p.credit = min(p.credit+now.Sub(p.credited)/busyShare, burst)
	}
	p.credited = now
	p.credit -= work
	p.notBefore = now.Add(max(-p.credit, 0) * busyShare)

	switch {
	case !p.periodic.IsZero():
	case p.polled:
		p.periodic = now.Add(max(pollInterval, pollShare*d))
	default:
		p.periodic = now.Add(min(max(minimumSafety, safetyShare*work), maximumSafety))
	}
}
