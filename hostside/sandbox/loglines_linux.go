package sandbox

import (
	"bytes"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/agentlog"
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
	if line = bytes.TrimSpace(line); len(line) > 0 {
		agentlog.Write(l.logger, agentlog.Parse(line))
	}
}
