package agentlog_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/vmbridge/vmbridge/hostside/agentlog"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func TestWrite(t *testing.T) {
	logger, hook := test.NewNullLogger()
	to := logger.WithField("link", "vm")
	for _, c := range []struct {
		line  message.Log
		level logrus.Level
	}{
		{message.Log{Level: "info", Text: "a", Fields: map[string]string{"peer": "3:7"}}, logrus.InfoLevel},
		{message.Log{Level: "warning", Text: "b"}, logrus.WarnLevel},
		{message.Log{Level: "fatal", Text: "c"}, logrus.ErrorLevel}, // and the daemon lives on
		{message.Log{Level: "panic", Text: "d"}, logrus.ErrorLevel},
		{message.Log{Level: "loud", Text: "e"}, logrus.InfoLevel},
		// No guest passes for another.
		{message.Log{Level: "error", Text: "f", Fields: map[string]string{"link": "other"}}, logrus.ErrorLevel},
	} {
		agentlog.Write(to, c.line)
		e := hook.LastEntry()
		if e.Level != c.level || e.Message != "agent: "+c.line.Text || e.Data["link"] != "vm" {
			t.Errorf("%+v: got %v %q %v", c.line, e.Level, e.Message, e.Data)
		}
		if peer, ok := c.line.Fields["peer"]; ok && e.Data["peer"] != peer {
			t.Errorf("fields %v", e.Data)
		}
	}
}

// TestFlood holds H2: an agent cannot fill the daemon's log, and what is missing
// there is counted.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, hook := test.NewNullLogger()
		log := agentlog.New(logger.WithField("link", "vm"))
		flood := func(n int) (taken, dropped int) {
			hook.Reset()
			for range n {
				log.Add(message.Log{Level: "info", Text: "x"})
			}
			log.Flush()
			for _, e := range hook.AllEntries() {
				if e.Message == "agent: x" {
					taken++
				} else {
					dropped += e.Data["lines"].(int)
				}
			}
			return taken, dropped
		}
		if taken, dropped := flood(10000); taken > 200 || taken < 50 || taken+dropped != 10000 {
			t.Errorf("%d lines taken, %d dropped", taken, dropped)
		}
		time.Sleep(time.Minute) // of the bubble's time
		if taken, dropped := flood(50); taken != 50 || dropped != 0 {
			t.Errorf("after a minute: %d lines taken, %d dropped", taken, dropped)
		}
		// What the agent itself has left out counts as well, within reason.
		hook.Reset()
		time.Sleep(time.Minute)
		log.Add(message.Log{Text: "x", Dropped: 7})
		for range 3 {
			log.Add(message.Log{Text: "x", Dropped: 1<<63 - 1})
		}
		var counts []int
		for _, e := range hook.AllEntries() {
			if n, ok := e.Data["lines"].(int); ok {
				counts = append(counts, n)
			}
		}
		if len(counts) != 4 || counts[0] != 7 || counts[1] <= 0 {
			t.Errorf("counts %v", counts)
		}
	})
}
