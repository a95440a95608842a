package agentlog

import (
	"maps"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Write writes a line, which has been cleaned, to the log of the guest that it is
// from.
func Write(to *logrus.Entry, line message.Log) {
	level, err := logrus.ParseLevel(line.Level)
	if err != nil {
		level = logrus.InfoLevel
	}
	fields := make(logrus.Fields, len(line.Fields)+len(to.Data))
	for key, value := range line.Fields {
		fields[key] = value
	}
	maps.Copy(fields, to.Data)
	// Fatal and panic are the agent's, not ours.
	to.WithFields(fields).Log(max(level, logrus.ErrorLevel), "agent: "+line.Text)
}

const (
	// linesPerSecond is how many lines a Log takes in the long run, and burst how
	// many at once. An agent that is well logs a few an hour.
	linesPerSecond = 2
	burst          = 100
)

// Log is the log of one guest's agent.
type Log struct {
	to    *logrus.Entry
	limit *rate.Limiter

	mu      sync.Mutex
	dropped int // since the last line that was taken
}

// New makes the log that writes to a guest's.
func New(to *logrus.Entry) *Log {
	return &Log{to: to, limit: rate.NewLimiter(linesPerSecond, burst)}
}

// Add writes a line, unless there have been too many.
func (l *Log) Add(line message.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The agent's count is a guest's number: it must not make ours overflow.
	dropped := min(line.Dropped, maxDropped)
	taken := l.limit.Allow()
	if !taken {
		dropped++
	}
	l.dropped = min(l.dropped+dropped, maxDropped)
	if !taken {
		return
	}
	l.sayDropped()
	Write(l.to, line)
}

// maxDropped is where the count stops.
const maxDropped = 1_000_000_000

// Flush says what has been dropped, when no more lines come.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sayDropped()
}

// sayDropped is called with mu held.
func (l *Log) sayDropped() {
	if l.dropped > 0 {
		l.to.WithField("lines", l.dropped).Warn("the agent logs too much: lines are left out")
		l.dropped = 0
	}
}
