package sandbox

import (
	"bytes"
	"encoding/json"

	"github.com/sirupsen/logrus"

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
	text, _ := fields[logrus.FieldKeyMsg].(string)
	name, _ := fields[logrus.FieldKeyLevel].(string)
	level, err := logrus.ParseLevel(name)
	if err != nil {
		level = logrus.InfoLevel
	}
	// Fatal and panic are the agent's, not ours.
	level = max(level, logrus.ErrorLevel)
	entry := l.logger
	for key, value := range fields {
		switch key {
		case logrus.FieldKeyMsg, logrus.FieldKeyLevel, logrus.FieldKeyTime:
			continue
		}
		if s, ok := value.(string); ok {
			value = message.Clean(s, maxLogLine)
		}
		entry = entry.WithField(message.Clean(key, 64), value)
	}
	entry.Log(level, "agent: "+message.Clean(text, maxLogLine))
}
