package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/agentlog"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// maxLogLine bounds a line of the agent's log, in bytes.
const maxLogLine = 4 << 10

// logLines is a writer that hands the agent's log, one JSON object a line, to
// the daemon's logger. What is no JSON (a panic, say) is a warning as it is.
// The agent's text is made safe to print.
type logLines struct {
	logger *logrus.Entry
	part   []byte // of a line that has not ended
}

func (l *logLines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		room := max(maxLogLine-len(l.part), 0)
		l.part = append(l.part, line[:min(len(line), room)]...)
		if !ended {
			return n, nil
		}
		l.log(l.part)
		l.part = l.part[:0]
		p = rest
	}
}

func (l *logLines) log(line []byte) {
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		if text := message.Clean(string(bytes.TrimSpace(line)), maxLogLine); text != "" {
			l.logger.Warn("agent: " + text)
		}
		return
	}
	text := func(key string) string {
		s, _ := fields[key].(string)
		delete(fields, key)
		return s
	}
	entry := message.Log{Level: text(logrus.FieldKeyLevel), Text: text(logrus.FieldKeyMsg), Fields: map[string]string{}}
	delete(fields, logrus.FieldKeyTime)
	for key, value := range fields {
		entry.Fields[key] = fmt.Sprint(value)
	}
	entry.Clean()
	agentlog.Write(l.logger, entry)
}
