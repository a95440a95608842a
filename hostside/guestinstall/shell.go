package guestinstall

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	// lines are what it prints, cleaned; closed at the end, when err says why.
	lines chan string
	err   error
	done  chan struct{} // closed when nobody takes lines any more
	work  sync.WaitGroup
	keep  func() bool // keeps the end of the context from closing conn
}

// openShell runs the command. stderr hears what it writes to standard error.
func openShell(ctx context.Context, command string, stderr func(string)) (*shell, error) {
	endpoint, err := transport.Parse(string(transport.Exec) + ":" + command)
	if err != nil {
		return nil, err
	}
	conn, err := endpoint.Dial(ctx, transport.DialOptions{Stderr: stderr})
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
	s.keep = context.AfterFunc(ctx, func() { _ = conn.Close() })
	s.work.Go(s.read)
	return s, nil
}

// read passes the lines on until the shell ends.
func (s *shell) read() {
	defer close(s.lines)
	in := bufio.NewReaderSize(s.conn, maxLine)
	for {
		line, prefix, err := in.ReadLine()
		if err != nil {
			s.err = err
			return
		}
		text := message.Clean(string(line), maxLine)
		for prefix && err == nil { // the rest of a long line
			_, prefix, err = in.ReadLine()
		}
		select {
		case s.lines <- text:
		case <-s.done:
			return
		}
	}
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

// answer waits for an answer with that word and gives its arguments. Other lines
// go to print, which may be nil.
func (s *shell) answer(ctx context.Context, word string, print func(string)) (string, error) {
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				if ctx.Err() != nil {
					return "", context.Cause(ctx)
				}
				return "", s.ended()
			}
			args, marked := strings.CutPrefix(line, s.marker+" ")
			switch got, rest, _ := strings.Cut(args, " "); {
			case marked && got == word:
				return strings.TrimSpace(rest), nil
			case marked: // failed, and the status
				return "", fmt.Errorf("%w: exit status %s", ErrFailed, strings.TrimSpace(rest))
			case print != nil && strings.TrimSpace(line) != "":
				print(line)
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// ended says why there are no more lines.
func (s *shell) ended() error {
	var exit *transport.ExitError
	if errors.As(s.err, &exit) {
		return exit
	}
	if s.err == io.EOF {
		return ErrHungUp
	}
	return s.err
}
