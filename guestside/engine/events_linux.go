package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Event is something that happened in an engine: {"container", "start"}. One
// that could not be read is zero, and stands for any.
type Event struct {
	Type   string
	Action string
}

const (
	// maxEvent is how much of an event is read, in bytes. Labels of containers
	// can make it longer; such an event counts as one that could not be read.
	maxEvent = 64 << 10
	// eventBytes per eventPause is how fast events are read. An engine that
	// starts a container has work for longer.
	eventBytes = 256 << 10
	eventPause = 100 * time.Millisecond
)

// ErrEnded is wrapped by the error of a stream of events that had begun.
var ErrEnded = errors.New("the engine has closed its stream of events")

// Follow tells of the events of the engine behind a socket, those since a time
// (to a second) and what comes, until the stream or ctx ends, which is its
// error. Filters are the engine's, by name. Some engines say nothing, not even that
// they have understood, before the first event.
func Follow(ctx context.Context, socket string, since time.Time, filters map[string][]string, tell func(Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	encoded, err := json.Marshal(filters)
	if err != nil {
		return fmt.Errorf("encode the filters of events: %w", err)
	}
	query := url.Values{"since": {strconv.FormatInt(since.Unix(), 10)}, "filters": {string(encoded)}}
	body, err := ask(ctx, socket, "/events?"+query.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, maxEvent)
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	read, whole := 0, true
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			whole = false
		case err != nil:
			return errors.Join(ErrEnded, ctx.Err())
		default:
			tell(readEvent(line, whole))
			whole = true
		}
		if read += len(line); read < eventBytes {
			continue
		}
		read = 0
		pause.Reset(eventPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return errors.Join(ErrEnded, ctx.Err())
		}
	}
}

func readEvent(line []byte, whole bool) Event {
	var event Event
	if !whole || json.Unmarshal(line, &event) != nil {
		return Event{}
	}
	return event
}
