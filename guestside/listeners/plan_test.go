package listeners

import (
	"testing"
	"time"
)

// TestPlanFollowUps holds that an event is followed by looks at once and 1, 20
// and 200 ms later, and then by periodic ones alone.
func TestPlanFollowUps(t *testing.T) {
	start := time.Now()
	now := start
	var p plan
	look := func() (periodic bool) {
		if next := p.next(); next.After(now) {
			now = next
		}
		periodic = p.begin(now)
		p.end(now, 0, 0)
		return periodic
	}
	if !look() || now != start {
		t.Fatal("the first look is not at once, or not periodic")
	}
	now = now.Add(time.Second)
	event := now
	p.wake(event)
	for _, want := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond} {
		if periodic := look(); periodic || now.Sub(event) != want {
			t.Errorf("a look %v after the event (periodic: %v), want %v", now.Sub(event), periodic, want)
		}
	}
	if periodic := look(); !periodic || now.Sub(start) != minimumSafety {
		t.Errorf("a look %v after the first (periodic: %v), want %v", now.Sub(start), periodic, minimumSafety)
	}
}

// TestPlanPeriod holds that events do not put off the periodic look, and that
// its period fits the time that a dump takes.
func TestPlanPeriod(t *testing.T) {
	for _, c := range []struct {
		polled     bool
		dump, want time.Duration
	}{
		{false, 50 * time.Microsecond, minimumSafety},
		{false, 5 * time.Millisecond, 5 * time.Second},
		{false, time.Second, maximumSafety},
		{true, 50 * time.Microsecond, pollInterval},
		{true, 50 * time.Millisecond, time.Second},
	} {
		p := plan{polled: c.polled}
		start := time.Now()
		p.begin(start)
		p.end(start, c.dump, c.dump)
		for now := start; now.Before(start.Add(c.want)); now = now.Add(c.want / 10) {
			p.wake(now)
			if p.begin(now) {
				t.Errorf("%+v: a periodic look after %v", c, now.Sub(start))
			}
			p.end(now, c.dump, c.dump)
		}
		if !p.begin(start.Add(c.want)) {
			t.Errorf("%+v: no periodic look", c)
		}
	}
}

// TestPlanStorm holds that a storm of events costs a bounded share of time, and
// that the first of them is served at once.
func TestPlanStorm(t *testing.T) {
	const work = 2 * time.Millisecond
	start := time.Now()
	p := plan{}
	p.begin(start)
	p.end(start, 0, 0)
	busy := time.Duration(0)
	end := start.Add(time.Second)
	for now := start; now.Before(end); now = now.Add(100 * time.Microsecond) {
		p.wake(now)
		if p.next().After(now) {
			continue
		}
		p.begin(now)
		now = now.Add(work)
		busy += work
		p.end(now, work, work)
	}
	if share := time.Second/busyShare + 2*burst; busy > share {
		t.Errorf("%v of a second went into looks, want at most %v", busy, share)
	}
	if busy < 100*time.Millisecond {
		t.Errorf("only %v of a second went into looks", busy)
	}
}
