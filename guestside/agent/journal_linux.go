package agent

import (
	"fmt"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

const (
	// queuedLines is how many lines may wait for a host.
	queuedLines = 64
	// linesPerSecond is how many are sent in the long run: whoever can make the
	// agent log, such as a container that knocks at its port, shall not fill the
	// log of the host.
	linesPerSecond = 2
)

// journal hands what the agent logs to the hosts that want it. It is a hook of
// the logger, so it never waits.
type journal struct {
	mu      sync.Mutex
	readers map[*link.Session]*logReader
}

// logReader is a host that wants the log.
type logReader struct {
	lines   chan message.Log
	dropped int // lines that found no room; held by journal.mu
}

var _ logrus.Hook = (*journal)(nil)

func newJournal() *journal { return &journal{readers: map[*link.Session]*logReader{}} }

// Levels implements logrus.Hook: what is above debug.
func (j *journal) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel}
}

// Fire implements logrus.Hook.
func (j *journal) Fire(entry *logrus.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.readers) == 0 {
		return nil
	}
	line := message.Log{Level: entry.Level.String(), Text: entry.Message}
	for key, value := range entry.Data {
		if line.Fields == nil {
			line.Fields = make(map[string]string, len(entry.Data))
		}
		line.Fields[key] = fmt.Sprint(value)
	}
	line.Clean() // it is not to be longer than what a host keeps
	for _, r := range j.readers {
		line.Dropped = r.dropped
		select {
		case r.lines <- line:
			r.dropped = 0
		default:
			r.dropped++
		}
	}
	return nil
}

// join begins a host's log; false when it has begun.
func (j *journal) join(s *link.Session) (<-chan message.Log, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.readers[s] != nil {
		return nil, false
	}
	r := &logReader{lines: make(chan message.Log, queuedLines)}
	j.readers[s] = r
	return r.lines, true
}

// leave ends a host's log.
func (j *journal) leave(s *link.Session) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.readers, s)
}

// sendLog sends a host the log from now on, until its session ends. What was
// logged before is in the guest's own log, and what is degraded in the report.
func (a *agent) sendLog(s *link.Session) {
	lines, joined := a.journal.join(s)
	if !joined {
		return
	}
	limit := rate.NewLimiter(linesPerSecond, queuedLines)
	a.work.Go(func() {
		for {
			select {
			case line := <-lines:
				// The next line waits a moment, not this one: a session that has ended
				// ends the goroutine here.
				if s.Send(message.Message{Log: &line}) != nil || limit.Wait(a.ctx) != nil {
					return
				}
			case <-s.Done():
				return
			case <-a.ctx.Done():
				return
			}
		}
	})
}
