package transport

import (
	"bytes"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// maxLine bounds a line of a command's standard error, in bytes. Longer ones
// are passed on in pieces.
const maxLine = 1024

// LineWriter passes on what is written to it line by line, safe to print: a
// command such as ssh shows what the other side has sent. It is for one goroutine
// at a time.
type LineWriter struct {
	Line    func(string) // may be nil
	partial []byte
	last    string // the last line that was not empty
}

// Last is the last line that was not empty.
func (w *LineWriter) Last() string { return w.last }

// Write implements io.Writer. It never fails.
func (w *LineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLine - len(w.partial); len(part) > room {
			part, rest, ended = p[:room], p[room:], true
		}
		w.partial = append(w.partial, part...)
		if ended {
			w.Flush()
		}
		p = rest
	}
	return n, nil
}

// Flush passes on a last line without its end.
func (w *LineWriter) Flush() {
	text := bytes.TrimRight(w.partial, "\r")
	w.partial = w.partial[:0]
	if len(text) == 0 {
		return
	}
	w.last = message.Clean(string(text), maxLine)
	if w.Line != nil {
		w.Line(w.last)
	}
}
