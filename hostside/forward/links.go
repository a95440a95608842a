package forward

import (
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// linkState is a guest that has reported, or may report, listeners.
type linkState struct {
	name     string
	carrier  Carrier // nil while there is no session: newcomers are reset
	gen      int     // counts the carriers
	forwards map[message.Key]*forward
	// ephemeral counts the forwards of UDP clients, which have a limit of their
	// own, so that they never crowd out listeners.
	ephemeral int
	// snapshot holds the keys of a snapshot that is still arriving.
	snapshot map[message.Key]struct{}
	// over is set while the limit is exceeded: it is logged once.
	over bool
}

// SetLink adds a link, or gives it another carrier. A nil carrier keeps the
// forwards open and resets their newcomers: for the moment between sessions.
func (e *Engine) SetLink(name string, c Carrier) {
	e.change(func() {
		l := e.links[name]
		if l == nil {
			l = &linkState{name: name, forwards: make(map[message.Key]*forward)}
			e.links[name] = l
		}
		if l.carrier == c {
			return
		}
		l.carrier = c
		l.gen++
		for _, f := range l.forwards {
			e.touchClaims(f)
		}
	})
}

// LinkDown closes all forwards of a link and forgets what it reported.
func (e *Engine) LinkDown(name string) {
	e.change(func() {
		l := e.links[name]
		if l == nil {
			return
		}
		for k := range l.forwards {
			e.remove(l, k)
		}
		delete(e.links, name)
	})
}

// ListenersChanged applies a report of a link's guest; when it returns, what
// the report asks for is open or has a reason not to be. A report of a link
// that is not set is void.
func (e *Engine) ListenersChanged(name string, m message.Listeners) {
	tooMany := 0
	e.change(func() {
		l := e.links[name]
		if l == nil {
			return
		}
		if m.Reset {
			l.snapshot = make(map[message.Key]struct{})
			l.over = false
		}
		// Removals first: a listener that changes its address must find its port
		// free of its former self.
		for _, k := range m.Remove {
			delete(l.snapshot, k)
			e.remove(l, k)
		}
		now := time.Now()
		refused := m.Dropped
		for _, listener := range m.Add {
			if l.snapshot != nil {
				l.snapshot[listener.Key] = struct{}{}
			}
			if !e.add(l, listener, now) {
				refused++
			}
		}
		if l.snapshot != nil && !m.More {
			for k := range l.forwards {
				if _, ok := l.snapshot[k]; !ok {
					e.remove(l, k)
				}
			}
			l.snapshot = nil
		}
		if refused > 0 && !l.over {
			l.over, tooMany = true, e.most
		}
	})
	if tooMany > 0 {
		e.log.WithField("link", name).Warnf(
			"the guest has more than %d listeners; those beyond are not forwarded", tooMany)
	}
}

// add takes a new listener, or news of a known one. It is false beyond the
// limit.
func (e *Engine) add(l *linkState, listener message.Listener, now time.Time) bool {
	if f := l.forwards[listener.Key]; f != nil {
		if f.listener != listener {
			l.countEphemeral(f.listener, -1)
			f.listener = listener
			l.countEphemeral(f.listener, +1)
			e.replan(f)
			e.dirty[f] = struct{}{}
		}
		return true
	}
	count := len(l.forwards) - l.ephemeral
	if listener.Ephemeral {
		count = l.ephemeral
	}
	if count >= e.most {
		return false
	}
	e.seq++
	f := &forward{link: l, listener: listener, seen: now, seq: e.seq}
	l.forwards[listener.Key] = f
	l.countEphemeral(listener, +1)
	e.replan(f)
	e.dirty[f] = struct{}{}
	return true
}

func (e *Engine) remove(l *linkState, k message.Key) {
	f := l.forwards[k]
	if f == nil {
		return
	}
	delete(l.forwards, k)
	l.countEphemeral(f.listener, -1)
	for _, c := range f.claims {
		e.unclaim(c)
	}
	f.gone = true
	e.dirty[f] = struct{}{}
}

func (l *linkState) countEphemeral(listener message.Listener, n int) {
	if listener.Ephemeral {
		l.ephemeral += n
	}
}

func (e *Engine) replanAll() {
	for _, l := range e.links {
		for _, f := range l.forwards {
			e.replan(f)
		}
	}
}

// replan brings the claims of a forward in line with the policy. Claims that
// stay keep their sockets. Those that do not are ended by the policy and not by
// the guest: what they carry ends with them.
func (e *Engine) replan(f *forward) {
	p := plan{state: Denied, reason: "host networking is not on"}
	switch {
	case e.enabled:
		p = e.policy.plan(f.listener)
	case f.listener.Ephemeral:
		p.hidden = e.policy.plan(f.listener).hidden
	default: // turning off does not wait for rules to be compared with names
	}
	if f.plan.equal(p) {
		return
	}
	e.dirty[f] = struct{}{}
	old := f.claims
	f.plan, f.claims = p, nil
	for _, w := range p.binds {
		c := takeClaim(&old, w)
		if c == nil {
			c = &claim{bindWish: w, fwd: f}
			e.enter(c)
		}
		f.claims = append(f.claims, c)
	}
	for _, c := range old {
		e.unclaim(c)
		c.stats.Retire()
		f.before.add(&c.stats) // bytes under way to be counted are lost
		f.before.flows = 0
		e.cut[f.link] = struct{}{}
	}
}

// cutRetired ends what claims carry that the policy has ended. It comes before
// their sockets are closed, which those that linger only are when they have no
// connections.
func (e *Engine) cutRetired() {
	for l := range e.cut {
		if l.carrier != nil {
			l.carrier.CutRetired()
		}
		delete(e.cut, l)
	}
}

// takeClaim removes the claim with this wish from the list and returns it.
func takeClaim(list *[]*claim, w bindWish) *claim {
	for i, c := range *list {
		if c.bindWish == w {
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			return c
		}
	}
	return nil
}

// enter puts a claim into its group, which is made on the way.
func (e *Engine) enter(c *claim) {
	k := c.group()
	g := e.groups[k]
	if g == nil {
		g = &group{groupKey: k, heapIndex: -1}
		e.groups[k] = g
	}
	g.claims = append(g.claims, c)
	e.touch(g)
}

func (e *Engine) unclaim(c *claim) {
	g := e.groups[c.group()]
	for i, other := range g.claims {
		if other == c {
			g.claims = append(g.claims[:i], g.claims[i+1:]...)
			break
		}
	}
	e.touch(g)
}

func (e *Engine) touchClaims(f *forward) {
	for _, c := range f.claims {
		e.touch(e.groups[c.group()])
	}
}

// touch marks a group to be settled.
func (e *Engine) touch(g *group) {
	if !g.touched {
		g.touched = true
		e.touched = append(e.touched, g)
	}
}

func (e *Engine) settleTouched() {
	for i, g := range e.touched {
		g.touched = false
		e.touched[i] = nil
		e.settle(g)
	}
	e.touched = e.touched[:0]
}
