package link

import (
	"io"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// SetClock replaces the wall clock.
func (cfg *Config) SetClock(now func() time.Time) { cfg.now = now }

// Queued is how many bytes the session holds for sockets that do not take them.
func (s *Session) Queued() int64 { return s.queued.Load() }

// Growth is by how many bytes the windows of all streams exceed the initial
// credit.
func (s *Session) Growth() int64 { return s.growth.Load() }

// Flows is how many flows the session has, whoever opened them.
func (s *Session) Flows() int {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	n := 0
	for _, c := range conns {
		c.mu.Lock()
		n += len(c.flows)
		c.mu.Unlock()
	}
	return n
}

// Complete tells whether all connections of the session have joined.
func (s *Session) Complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) == s.count
}

// Bounds that tests check.
const (
	InitialCredit = initialCredit
	MaxWindow     = maxWindow
	MaxSessions   = maxSessions
	MaxHandshakes = maxHandshakes
)

// ErrUnread ends a session whose peer does not read.
var ErrUnread = errUnread

// ReadFrame reads one frame, as a peer that is a test.
func ReadFrame(r io.Reader) (wire.Header, []byte, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.ParseHeader(head[:])
	if err != nil {
		return h, nil, err
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(r, payload)
	return h, payload, err
}
