package link

import (
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Times of the watch over a session's connections.
const (
	watchInterval = 500 * time.Millisecond
	// quietBeforePing is how long a connection may be silent before it is asked.
	quietBeforePing = 3 * time.Second
	// quietBeforeDead is when silence ends the session, within the 10 s that the
	// protocol promises.
	quietBeforeDead = 9 * time.Second
	// clockJump is the difference between wall and monotonic clock that means
	// that the machine slept. The peer then has 1 s to answer.
	clockJump      = 5 * time.Second
	graceAfterWake = time.Second
)

// watch pings silent connections and ends the session when one stays silent.
func (s *Session) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	quiet := map[*conn]time.Duration{}
	wall, monotonic := s.config.now().Round(0), time.Now()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
		}
		wallNow, now := s.config.now().Round(0), time.Now()
		elapsed := now.Sub(monotonic)
		jump := wallNow.Sub(wall) - elapsed
		wall, monotonic = wallNow, now
		slept := jump > clockJump || jump < -clockJump

		s.mu.Lock()
		conns := s.conns
		s.mu.Unlock()
		for _, c := range conns {
			before := quiet[c]
			after := before + min(elapsed, 2*watchInterval)
			if c.heard.Swap(false) {
				before, after = 0, 0
			}
			if slept {
				before, after = 0, quietBeforeDead-graceAfterWake
			}
			quiet[c] = after
			switch {
			case after >= quietBeforeDead:
				s.fail(ErrPeerDead)
				return
			case slept, before < quietBeforePing && after >= quietBeforePing:
				c.out.post(wire.AppendFrame(nil, wire.TypePing, 0, nil))
			}
		}
	}
}
