package vhostdevice

import (
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

// A guest that comes, goes and breaks its rings as fast as it can fills the log
// with one line in ten seconds.
const (
	logEvery = 10 * time.Second
	logBurst = 20
)

// limitedLog logs what guests and clients cause, as far as the limit goes, and
// counts the rest.
type limitedLog struct {
	logger *logrus.Logger
	limit  *rate.Limiter

	mu      sync.Mutex
	dropped int
}

func newLimitedLog(logger *logrus.Logger) *limitedLog {
	return &limitedLog{logger: logger, limit: rate.NewLimiter(rate.Every(logEvery), logBurst)}
}

func (l *limitedLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limit.Allow() {
		l.dropped++
		return
	}
	l.flush()
	l.logger.Info(fmt.Sprintf(format, args...))
}

// close tells what was not logged.
func (l *limitedLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

func (l *limitedLog) flush() {
	if l.dropped > 0 {
		l.logger.Warnf("%d lines more were too many to log", l.dropped)
		l.dropped = 0
	}
}
