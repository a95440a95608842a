// Package wait is how tests wait: for the event, with a deadline, and never for a
// time alone.
package wait

import (
	"testing"
	"time"
)

// poll is how often a condition is looked at.
const poll = 2 * time.Millisecond

// Until looks at a condition until it holds, and fails the test when it has not
// within limit.
func Until(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for end := time.Now().Add(limit); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", limit, what)
		}
	}
}

// For takes a value from a channel, and fails the test when none comes within
// limit.
func For[T any](t testing.TB, limit time.Duration, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("waited %s for %s", limit, what)
		panic("not reached")
	}
}
