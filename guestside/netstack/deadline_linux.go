package netstack

import (
	"sync"
	"time"
)

// deadline is a time limit that can be moved while others wait for it.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{}
}

func (d *deadline) init() { d.passed = make(chan struct{}) }

// set moves the deadline; zero means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer's function runs or has run
	}
	d.timer = nil

	over := false
	select {
	case <-d.passed:
		over = true
	default:
	}
	if t.IsZero() {
		if over {
			d.passed = make(chan struct{})
		}
		return
	}
	if left := time.Until(t); left > 0 {
		if over {
			d.passed = make(chan struct{})
		}
		passed := d.passed
		d.timer = time.AfterFunc(left, func() { close(passed) })
		return
	}
	if !over {
		close(d.passed)
	}
}

// wait returns a channel that is closed when the deadline has passed. A nil
// deadline never does.
func (d *deadline) wait() <-chan struct{} {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}
