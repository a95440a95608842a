package control

import (
	"errors"
	"fmt"
	"net/http"
)

// What callers decide on. A Backend's errors wrap ErrRefused, ErrNotFound and
// ErrInvalid where they apply; the Client gives them back.
var (
	// ErrRefused says that policy or isolation forbids what was asked for.
	ErrRefused = errors.New("refused")
	// ErrNotFound says that the link, key or sandbox asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrInvalid says that what was asked for cannot be: an unknown key, or a
	// value that the key does not take.
	ErrInvalid = errors.New("invalid")
	// ErrNotRunning says that no daemon serves this home.
	ErrNotRunning = errors.New("no daemon is running")
	// ErrForbidden says that the control socket belongs to another user.
	ErrForbidden = errors.New("the daemon belongs to another user")
	// ErrSocketPath says that the control socket's path cannot be used.
	ErrSocketPath = errors.New("unusable socket path")
)

// RunningError says that another daemon has claimed the home.
type RunningError struct {
	Home string
	PID  int // 0 when it cannot be told
}

func (e *RunningError) Error() string {
	who := "another daemon"
	if e.PID != 0 {
		who = fmt.Sprintf("another daemon (pid %d)", e.PID)
	}
	return fmt.Sprintf("%s runs on %s: stop it, or set %s to another directory", who, e.Home, HomeVariable)
}

// problem is the JSON of an answer that is not 2xx.
type problem struct {
	Error string `json:"error"`
}

// statusOf and errorOf are each other's inverse.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrRefused):
		return http.StatusForbidden
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// remoteError is an error that the daemon reported: its text is the daemon's,
// and errors.Is finds the kind.
type remoteError struct {
	text string
	kind error // nil for one that callers do not decide on
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func errorOf(status int, text string) error {
	if text == "" {
		text = "the daemon answered " + http.StatusText(status)
	}
	e := &remoteError{text: text}
	switch status {
	case http.StatusForbidden:
		e.kind = ErrRefused
	case http.StatusNotFound:
		e.kind = ErrNotFound
	case http.StatusBadRequest:
		e.kind = ErrInvalid
	}
	return e
}
