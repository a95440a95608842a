package vhostvsock

import (
	"sync"
	"syscall"
	"time"
)

const (
	// askFirst and askLimit bound how often a connection that may not send asks
	// the guest for credit. Linux announces credit by itself when three quarters
	// of its buffer have been read, and may never reach that when the packets
	// were small: then asking is the only way on.
	askFirst = 5 * time.Millisecond
	askLimit = time.Second

	// lingerLimit is how long a closed connection waits for the guest to take
	// any of what is left. A guest may be paused for a minute.
	lingerLimit = 2 * time.Minute
)

// deadline is one direction's; it is guarded by the connection's lock.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func (d *deadline) set(c *Conn, waiting *sync.Cond, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		waiting.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.timer == timer {
			d.passed = true
			waiting.Broadcast()
		}
	})
	d.timer = timer
}

// asking repeats CREDIT_REQUEST while the connection may not send.
type asking struct {
	timer *time.Timer
	wait  time.Duration
}

func (c *Conn) startAsking() {
	if c.asking.timer != nil {
		return
	}
	c.askDue = true
	c.asking.wait = askFirst
	c.armAsking()
}

func (c *Conn) armAsking() {
	var timer *time.Timer
	timer = time.AfterFunc(c.asking.wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.asking.timer != timer {
			return
		}
		c.askDue = true
		c.device.queue.add(c)
		c.asking.wait = min(2*c.asking.wait, askLimit)
		c.armAsking()
	})
	c.asking.timer = timer
}

func (c *Conn) stopAsking() {
	if c.asking.timer != nil {
		c.asking.timer.Stop()
		c.asking.timer = nil
	}
	c.askDue = false
}

// linger ends a closed connection that the guest has forgotten.
type linger struct {
	timer *time.Timer
	sent  uint32 // when it was last looked at
	taken uint32
}

func (c *Conn) startLinger() {
	c.linger.sent, c.linger.taken = c.send.sent, c.send.forwarded
	var timer *time.Timer
	timer = time.AfterFunc(c.device.lingerLimit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.linger.timer != timer {
			return
		}
		if c.linger.sent != c.send.sent || c.linger.taken != c.send.forwarded {
			c.startLinger()
			return
		}
		c.reset(syscall.ETIMEDOUT)
	})
	c.linger.timer = timer
}

func (c *Conn) stopLinger() {
	if c.linger.timer != nil {
		c.linger.timer.Stop()
		c.linger.timer = nil
	}
}
