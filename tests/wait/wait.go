// Package wait is how tests wait: for the event, with a deadline, and never for a
// time alone.
package wait

import (
	"errors"
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

// Eventually tries until there is no error, and fails the test with the last one
// when that takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, what string, try func() error) {
	t.Helper()
	if err := Try(limit, try); err != nil {
		t.Fatalf("%s: not within %s: %v", what, limit, err)
	}
}

// Try tries until there is no error, and gives the last one when that takes longer
// than limit. It tries once in any case.
func Try(limit time.Duration, try func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return err
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

// Together calls f with 0 to n-1, all at once, waits for all, and gives some of
// their errors.
func Together(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	const most = 5
	var some []error
	for range n {
		if err := <-errs; err != nil && len(some) < most {
			some = append(some, err)
		}
	}
	return errors.Join(some...)
}
