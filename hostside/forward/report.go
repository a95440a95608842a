package forward

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/product"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// report tells watchers what has changed since they were last told, and returns
// it for the log; next is when something that is too young now may be told, zero
// for never.
func (e *Engine) report(now time.Time) (lines []logLine, next time.Time) {
	var changes []Change
	// The gone first: a listener that came back is another forward with the same
	// name.
	for f := range e.dirty {
		if !f.gone && !f.plan.hidden {
			continue
		}
		delete(e.dirty, f)
		if f.told != (told{}) {
			lines = append(lines, f.line(f.told, told{}))
			f.told = told{}
			changes = append(changes, Change{Forward: f.snapshot(), Gone: true})
		}
	}
	for f := range e.dirty {
		if at := f.mentionAt(); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		if f.pending() {
			continue // the answer wakes us
		}
		delete(e.dirty, f)
		before := f.told
		f.told.state, f.told.reason = f.state()
		f.told.port, f.told.by = f.port(), f.by()
		if before.state != f.told.state || f.told.state == Open && before.port != f.told.port {
			lines = append(lines, f.line(before, f.told))
		}
		changes = append(changes, Change{Forward: f.snapshot()})
	}
	for w := range e.watchers {
		w.put(changes)
	}
	return lines, next
}

// logLine is one thing that happened to one forward.
type logLine struct {
	level    logrus.Level
	text     string
	link     string
	listener message.Listener
	port     uint16 // this machine's
	why      string
	by       product.VM // of a port that is carried
}

// line words a change of state; the zero told is a forward that is not, or no
// longer, there.
func (f *forward) line(before, is told) logLine {
	l := logLine{level: logrus.InfoLevel, link: f.link.name, listener: f.listener, port: is.port, why: is.reason, by: is.by}
	if over := is.state == "" || is.state == Denied || is.state == Ignored; over && before.state != "" {
		l.port = before.port // the one that is let go
	}
	switch {
	case is.state == Open && before.state == Conflict:
		l.text = "conflict resolved, forward open"
	case is.state == Open && before.state == Carried:
		l.text = "forward open: its product has let go of the port"
	case is.state == Open:
		l.text = "forward open"
	case is.state == Conflict:
		l.level, l.text = logrus.WarnLevel, "port conflict"
	case is.state == Failed:
		l.level, l.text = logrus.WarnLevel, "forward failed"
	case is.state == Carried:
		l.text = "port carried by its VM's product"
	case before.state == Open:
		l.text = "forward closed"
	case before.state == Conflict:
		l.text = "conflict over: the port is no longer wanted"
	default:
		l.level, l.text = logrus.DebugLevel, "listener "+string(is.state)
		if is.state == "" {
			l.text = "listener gone"
		}
	}
	return l
}
