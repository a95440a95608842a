//go:build unix

package transport

import "os"

// pipe returns a pipe whose end on our side is pollable. The ends of a Unix
// pipe both are, until a child is given one.
func pipe(ourEnd pipeEnd) (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	growPipe(w)
	return r, w, nil
}
