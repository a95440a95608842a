package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNone is wrapped by the errors of questions to a socket that nobody listens
// on: there is no engine.
var ErrNone = errors.New("no engine listens there")

// ErrNotFound is wrapped by the errors of questions about what the engine does
// not have (any more).
var ErrNotFound = errors.New("the engine does not know it")

const (
	// Timeout bounds one question.
	Timeout = 2 * time.Second
	// maxAnswer bounds an answer, or one element of a list, in bytes.
	maxAnswer = 1 << 20
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 64 << 10
)

// Get asks the engine behind a socket and decodes its answer, which is JSON.
func Get(ctx context.Context, socket, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	body, err := ask(ctx, socket, path)
	if err != nil {
		return err
	}
	defer body.Close()
	limited := &io.LimitedReader{R: body, N: maxAnswer}
	if err := json.NewDecoder(limited).Decode(answer); err != nil {
		return unreadable(ctx, limited, path, err)
	}
	return nil
}

// Each asks for a list and hands on its elements one at a time, at most most of
// them. It tells whether there are more.
func Each[T any](ctx context.Context, socket, path string, most int, use func(T)) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	body, err := ask(ctx, socket, path)
	if err != nil {
		return false, err
	}
	defer body.Close()
	limited := &io.LimitedReader{R: body, N: maxAnswer}
	list := json.NewDecoder(limited)
	if token, err := list.Token(); err != nil {
		return false, unreadable(ctx, limited, path, err)
	} else if token != json.Delim('[') {
		return false, fmt.Errorf("ask %s: the answer is no list", path)
	}
	for n := 0; list.More(); n++ {
		if n == most {
			return true, nil
		}
		limited.N = maxAnswer // each is bounded by itself
		var element T
		if err := list.Decode(&element); err != nil {
			return false, unreadable(ctx, limited, path, err)
		}
		use(element)
	}
	if _, err := list.Token(); err != nil {
		return false, unreadable(ctx, limited, path, err)
	}
	return false, nil
}

// unreadable says why an answer could not be decoded.
func unreadable(ctx context.Context, read *io.LimitedReader, path string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask %s: the answer does not end within %s", path, Timeout)
	case read.N <= 0:
		return fmt.Errorf("ask %s: the answer is longer than %d bytes", path, maxAnswer)
	}
	return fmt.Errorf("ask %s: read the answer: %w", path, err)
}

// ask sends a request and returns the body of the answer, which ends with ctx.
// It does without http.Transport, which logs what comes unasked.
func ask(ctx context.Context, socket, path string) (body io.ReadCloser, err error) {
	defer func() {
		switch {
		case err == nil, errors.Is(err, ErrNone):
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			err = fmt.Errorf("ask %s: it does not answer within %s", path, Timeout)
		case ctx.Err() != nil:
			err = fmt.Errorf("ask %s: %w", path, ctx.Err())
		default:
			err = fmt.Errorf("ask %s: %w", path, err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	} else if err != nil {
		return nil, err
	}
	a := &answer{conn: conn, stop: context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Now()) // wakes who waits; a closed one needs none
	})}
	if err := a.exchange(req); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// answer is the body of an answer with its connection.
type answer struct {
	io.Reader
	conn net.Conn
	stop func() bool
}

// exchange sends the request and reads the answer's header.
func (a *answer) exchange(req *http.Request) error {
	if err := req.Write(a.conn); err != nil {
		return err
	}
	limited := &io.LimitedReader{R: a.conn, N: maxHeader}
	resp, err := http.ReadResponse(bufio.NewReader(limited), req)
	switch {
	case err != nil && limited.N <= 0:
		return fmt.Errorf("the header is longer than %d bytes", maxHeader)
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return ErrNotFound
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	limited.N = math.MaxInt64 // whoever reads the body bounds it
	a.Reader = resp.Body
	return nil
}

// Close closes the connection, whatever is left of the answer.
func (a *answer) Close() error {
	a.stop()
	return a.conn.Close()
}

// Activated tells whether process 1 made the socket. It is then the service
// manager's, who starts the engine when somebody connects, so ask only while
// the engine runs.
func Activated(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var maker *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		maker, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return false
	}
	return err == nil && maker.Pid == 1
}
