package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// Event is one line of a watch: what became of one port. The first events of a
// watch are "appear" for all ports there are, then one "ready".
type Event struct {
	Type string `json:"type"`
	Port Port   `json:"port"`
}

// Values of Event.Type.
const (
	Appear = "appear"
	Change = "change"
	Gone   = "gone"
	// Ready ends the list of the ports that were there; it has no port.
	Ready = "ready"
)

// watchPause is the least time between two looks at all ports for one client:
// when thousands of ports open at once, they are shown a few times, not
// thousands of times.
const watchPause = 20 * time.Millisecond

// watch streams server-sent events until the client leaves or the daemon ends.
func watch(w http.ResponseWriter, r *http.Request, b Backend) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	var known map[portKey]Port
	for {
		changed := b.Changed() // before the look, so that nothing falls between
		events, now := difference(known, listed(b.Ports()))
		if known == nil {
			events = append(events, Event{Type: Ready})
		}
		known = now
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Type, data); err != nil {
				return
			}
		}
		if err := flush(); err != nil {
			return
		}
		if !wait(r.Context(), changed) {
			return
		}
	}
}

// wait returns when changed is closed and the pause is over, or false when ctx
// ends.
func wait(ctx context.Context, changed <-chan struct{}) bool {
	pause := time.NewTimer(watchPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	}
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
	}
	return true
}

// portKey is what makes a port the same port.
type portKey struct {
	link, protocol string
	guest          Address
}

// difference compares ports with what was known, counters apart. Events come
// in the order of ports, what is gone first, so that a port that moved shows
// as it happened.
func difference(known map[portKey]Port, ports []Port) ([]Event, map[portKey]Port) {
	now := make(map[portKey]Port, len(ports))
	var came []Event
	for _, p := range ports {
		key := portKey{p.Link, p.Protocol, p.Guest}
		now[key] = p
		switch old, ok := known[key]; {
		case !ok:
			came = append(came, Event{Type: Appear, Port: p})
		case !same(old, p):
			came = append(came, Event{Type: Change, Port: p})
		}
	}
	var gone []Event
	for key, p := range known {
		if _, ok := now[key]; !ok {
			gone = append(gone, Event{Type: Gone, Port: p})
		}
	}
	slices.SortFunc(gone, func(a, b Event) int { return Compare(a.Port, b.Port) })
	return append(gone, came...), now
}

// same tells whether two looks at a port differ in their counters at most.
func same(a, b Port) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Owner == b.Owner &&
		a.Since.Equal(b.Since) && slices.Equal(a.Host, b.Host)
}

// readEvents parses server-sent events and hands each to yield, until the
// stream ends (io.ErrUnexpectedEOF) or yield fails.
func readEvents(r io.Reader, yield func(Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue // the event's name, which data repeats, and blank lines
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
