package transport

import (
	"bytes"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// maxLine bounds a line of a command's standard error, in bytes. Longer ones
// are passed on in pieces.
const maxLine = 1024

// lineWriter passes on what is written to it line by line, safe to print: a
// command such as ssh shows what the other side has sent.
type lineWriter struct {
	line    func(string) // may be nil
	partial []byte
	last    string // the last line that was not empty
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLine - len(w.partial); len(part) > room {
			part, rest, ended = p[:room], p[room:], true
		}
		w.partial = append(w.partial, part...)
		if ended {
			w.flush()
		}
		p = rest
	}
	return n, nil
}

// flush passes on a last line without its end.
func (w *lineWriter) flush() {
	text := bytes.TrimRight(w.partial, "\r")
	w.partial = w.partial[:0]
	if len(text) == 0 {
		return
	}
	w.last = message.Clean(string(text), maxLine)
	if w.line != nil {
		w.line(w.last)
	}
}
