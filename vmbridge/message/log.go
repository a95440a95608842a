package message

import (
	"maps"
	"slices"
)

// Log is a line of the agent's log.
type Log struct {
	Level  string            `json:"level"` // "error", "warning" or "info"
	Text   string            `json:"text"`
	Fields map[string]string `json:"fields,omitempty"`
	// Dropped counts the lines before this one that were not sent, because there
	// were too many.
	Dropped int `json:"dropped,omitempty"`
}

// MaxLogFields bounds the fields of a Log: what is beyond is cut.
const MaxLogFields = 16

const (
	maxLevel    = 16
	maxLogText  = 1024
	maxLogField = 64
)

// Clean makes a line safe to print, wherever it is from. Decode has done so.
func (l *Log) Clean() {
	l.Level = Clean(l.Level, maxLevel)
	l.Text = Clean(l.Text, maxLogText)
	l.Dropped = max(l.Dropped, 0)
	if len(l.Fields) == 0 {
		return
	}
	fields := make(map[string]string, MaxLogFields)
	for _, key := range atMost(MaxLogFields, slices.Sorted(maps.Keys(l.Fields))) {
		fields[Clean(key, maxLogField)] = Clean(l.Fields[key], maxLogText)
	}
	l.Fields = fields
}
