package listeners

import (
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
)

// While the kernel does not tell of its sockets, that is said, with the reason; and
// when it does again, how they are detected.
func TestDetectionUnavailable(t *testing.T) {
	log := logrus.New()
	log.SetOutput(t.Output())
	tracker, err := New(Config{Detect: Poll, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { tracker.Close() }()
	well, changed := tracker.Detection()
	if well.State != detectPoll {
		t.Fatalf("got %+v", well)
	}
	is := func(state, reason string) {
		t.Helper()
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		got, next := tracker.Detection()
		changed = next
		if got.State != state || !strings.Contains(got.Reason, reason) {
			t.Errorf("got %+v, want %s: %s", got, state, reason)
		}
	}
	tracker.conn.Close()
	tracker.look(t.Context(), tracker.udp())
	is(detectUnavailable, "dump udp sockets")
	tracker.look(t.Context(), tracker.tcp())
	is(detectUnavailable, "dump tcp sockets")

	if tracker.conn, err = sockdiag.Open(); err != nil {
		t.Fatal(err)
	}
	tracker.look(t.Context(), tracker.tcp())
	is(detectUnavailable, "dump udp sockets")
	tracker.look(t.Context(), tracker.udp())
	is(well.State, well.Reason)
}
