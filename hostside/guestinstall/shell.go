package guestinstall

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// maxLine bounds a line that is kept, in bytes; what a longer one has more is
// lost.
const maxLine = 1024

// ErrHungUp says that the shell ended before it had answered.
var ErrHungUp = errors.New("the guest's shell ended too early")

// shell is a shell in the guest.
type shell struct {
	conn   net.Conn
	marker string
	// lines are what it prints, cleaned; closed at the end, when err says why, or
	// early counts what came after the last.
	lines chan string
	err   error
	early int
	last  string        // what was printed last that is no answer, since the last order
	done  chan struct{} // closed when nobody takes lines any more
	work  sync.WaitGroup
	// keep keeps the end of the context from closing conn, and givenUp says why it
	// has: those that are derived from it may not know yet.
	keep    func() bool
	givenUp func() error
}

// openShell runs the command. stderr hears what it writes to standard error.
func openShell(ctx context.Context, command string, stderr func(string)) (*shell, error) {
	conn, err := dialCommand(ctx, command, stderr)
	if err != nil {
		return nil, err
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	s := &shell{
		conn:   conn,
		marker: "vmbridge" + hex.EncodeToString(random[:]),
		lines:  make(chan string),
		done:   make(chan struct{}),
	}
	s.givenUp = func() error { return context.Cause(ctx) }
	s.keep = context.AfterFunc(ctx, func() { _ = conn.Close() })
	s.work.Go(s.read)
	return s, nil
}

// dialCommand runs a command.
func dialCommand(ctx context.Context, command string, stderr func(string)) (net.Conn, error) {
	endpoint, err := transport.Parse(string(transport.Exec) + ":" + command)
	if err != nil {
		return nil, err
	}
	return endpoint.Dial(ctx, transport.DialOptions{Stderr: stderr})
}

// starting is the answer after which the shell is another program.
const starting = "starting"

// read passes the lines on until the shell ends, or is another program.
func (s *shell) read() {
	defer close(s.lines)
	in := bufio.NewReaderSize(s.conn, maxLine)
	for {
		line, prefix, err := in.ReadLine()
		if err != nil {
			s.err = err
			return
		}
		// What wsl.exe itself says may be UTF-16.
		text := message.Clean(strings.ReplaceAll(string(line), "\x00", ""), maxLine)
		for prefix && err == nil { // the rest of a long line
			_, prefix, err = in.ReadLine()
		}
		select {
		case s.lines <- text:
		case <-s.done:
			return
		}
		if strings.HasPrefix(text, s.marker+" "+starting) {
			s.early = in.Buffered()
			return
		}
	}
}

// release gives away the connection, whose other end is another program now.
func (s *shell) release(ctx context.Context) (net.Conn, error) {
	s.work.Wait()
	switch {
	case !s.keep():
		return nil, context.Cause(ctx)
	case s.early > 0:
		_ = s.conn.Close()
		return nil, fmt.Errorf("%w: it speaks before it was spoken to", ErrFailed)
	}
	return s.conn, s.conn.SetDeadline(time.Time{})
}

// close ends the shell and waits for it.
func (s *shell) close() {
	s.keep()
	close(s.done)
	_ = s.conn.Close() // it waits for the command
	s.work.Wait()
}

// send sends an order, or what a program in the guest waits for.
func (s *shell) send(deadline time.Time, what []byte) error {
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := s.conn.Write(what)
	if given := s.givenUp(); err != nil && given != nil {
		return given
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the guest takes nothing: %w", context.DeadlineExceeded)
	}
	return err
}

// say is shell code that answers: the word, and what the shell makes of the
// arguments. The line break before it ends whatever has been printed.
func (s *shell) say(word, args string) string {
	half := len(s.marker) / 2
	return fmt.Sprintf(`printf "\\n%%s%%s %s %%s\\n" %s %s %s`, word, s.marker[:half], s.marker[half:], args)
}

// answer waits for an answer with one of the words and gives its arguments. Other
// lines go to print, which may be nil.
func (s *shell) answer(ctx context.Context, print func(string), words ...string) (word, args string, err error) {
	s.last = ""
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				if ctx.Err() != nil {
					return "", "", context.Cause(ctx)
				}
				return "", "", cmp.Or(s.givenUp(), s.ended())
			}
			args, marked := strings.CutPrefix(line, s.marker+" ")
			if marked {
				word, args, _ := strings.Cut(args, " ")
				args = strings.TrimSpace(args)
				if !slices.Contains(words, word) { // failed, and the status
					return "", "", s.failed(args)
				}
				return word, args, nil
			}
			if strings.TrimSpace(line) == "" {
				continue
			}
			s.last = line
			if print != nil {
				print(line)
			}
		case <-ctx.Done():
			return "", "", context.Cause(ctx)
		}
	}
}

// succeeds waits for an answer that is an exit status.
func (s *shell) succeeds(ctx context.Context, print func(string), word string) error {
	_, status, err := s.answer(ctx, print, word)
	if err == nil && status != "0" {
		err = s.failed(status)
	}
	return err
}

// failed says how a step failed, and what it has printed.
func (s *shell) failed(status string) error {
	if s.last == "" {
		return fmt.Errorf("%w: exit status %s", ErrFailed, status)
	}
	return fmt.Errorf("%w: exit status %s: %s", ErrFailed, status, s.last)
}

// ended says why there are no more lines. Some commands say that on standard
// output, as wsl.exe does.
func (s *shell) ended() error {
	var exit *transport.ExitError
	if errors.As(s.err, &exit) {
		said := *exit
		said.LastLine = cmp.Or(said.LastLine, s.last)
		return &said
	}
	if s.err != nil && s.err != io.EOF {
		return s.err
	}
	if s.last == "" {
		return ErrHungUp
	}
	return fmt.Errorf("%w: %s", ErrHungUp, s.last)
}
