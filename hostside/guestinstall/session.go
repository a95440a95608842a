package guestinstall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// loginTimeout is how long the way to the shell may take; somebody may have
	// to type a password.
	loginTimeout = 2 * time.Minute
	// stepTimeout bounds a small step, and each part of a transfer.
	stepTimeout = 30 * time.Second
	// slow is when something that takes its time says so.
	slow = time.Second
)

// partSize is how much of the agent is sent at once, in bytes: progress and
// deadline are per part.
const partSize = 64 << 10

var (
	// ErrNotRoot says that the shell is not root's.
	ErrNotRoot = errors.New("the shell in the guest is not root's")
	// ErrTerminal says that the shell was given a terminal, which changes what
	// passes through.
	ErrTerminal = errors.New("the command gives the shell in the guest a terminal: leave out -t")
	// ErrTransfer says that the agent did not arrive as it was sent.
	ErrTransfer = errors.New("the agent has not arrived whole in the guest")
	// ErrFailed says that a step failed in the guest, which has said why.
	ErrFailed = errors.New("failed in the guest")
)

// session is a shell in the guest and what is done through it.
type session struct {
	*shell
	command string
	out     func(line string)
}

// within bounds a step, and says what it is when it takes its time.
func (s *session) within(ctx context.Context, limit time.Duration, what string) (context.Context, func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, noAnswer(limit))
	said := make(chan struct{})
	timer := time.AfterFunc(slow, func() {
		defer close(said)
		s.out(what)
	})
	return ctx, func() {
		if !timer.Stop() {
			<-said // nothing is said after the step
		}
		cancel()
	}
}

func noAnswer(after time.Duration) error {
	return fmt.Errorf("no answer after %s: %w", after, context.DeadlineExceeded)
}

// order sends a line to the shell.
func (s *session) order(line string) error {
	return s.send(time.Now().Add(stepTimeout), []byte(line+"\n"))
}

// hello learns where we are. Whatever shell answers is replaced by sh: a login
// shell may be another kind, and print prompts.
func (s *session) hello(ctx context.Context) (machine string, err error) {
	ctx, done := s.within(ctx, loginTimeout, "waiting for a shell in the guest: "+s.command)
	defer done()
	if err := s.order(`exec sh -c '` +
		s.say("hello", `"$(uname -m) $(id -u) $(test -t 0 && echo terminal)"`) + `; exec sh'`); err != nil {
		// A command that has failed has more to say than that it is gone.
		if _, _, ended := s.answer(ctx, nil, "hello"); ended != nil {
			return "", ended
		}
		return "", err
	}
	_, answer, err := s.answer(ctx, nil, "hello")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(answer)
	if len(fields) < 2 {
		return "", fmt.Errorf("%w: uname or id is missing: %q", ErrFailed, answer)
	}
	if fields[1] != "0" {
		return "", fmt.Errorf("%w but user %s's", ErrNotRoot, fields[1])
	}
	if len(fields) > 2 {
		return "", ErrTerminal
	}
	return fields[0], nil
}

// prepare runs shell code that makes a directory $t, and has it removed however
// the shell ends.
func (s *session) prepare(ctx context.Context, makeDirectory string) error {
	ctx, done := s.within(ctx, stepTimeout, "preparing the guest")
	defer done()
	// The traps stand before there is something to remove. Answers that nobody
	// hears any more must not kill the shell either.
	order := `umask 077; t=; trap 'test -z "$t" || rm -rf "$t"' EXIT; trap 'exit 1' HUP INT TERM; trap '' PIPE; ` +
		`{ ` + makeDirectory + `; } 2>&1; ` + s.say("prepared", `"$?"`)
	if err := s.order(order); err != nil {
		return err
	}
	return s.succeeds(ctx, s.out, "prepared")
}

// transfer sends the agent to $t, checks what has arrived, and gives its digest.
func (s *session) transfer(ctx context.Context, agent io.Reader, size int64) (digest string, err error) {
	file := `"$t/vmbridge-guest"`
	order := s.say("ready", `""`) + fmt.Sprintf("; head -c %d 2>&1 > %s || { ", size, file) + s.say("failed", `"$?"`) +
		`; rm -rf "$t"; cat > /dev/null; exit 1; }; ` +
		s.say("sent", `"$(wc -c < `+file+`) $(sha256sum < `+file+` 2> /dev/null)"`)
	if err := s.order(order); err != nil {
		return "", err
	}
	ready, done := s.within(ctx, stepTimeout, "waiting for the guest")
	_, _, err = s.answer(ready, nil, "ready")
	done()
	if err != nil {
		return "", err
	}
	answered := make(chan struct{})
	var answer string
	var answerErr error
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		defer close(answered)
		_, answer, answerErr = s.answer(waiting, s.out, "sent")
	}()
	sum := sha256.New()
	sendErr := s.sendParts(io.TeeReader(agent, sum), size, answered)
	limit := slow // a guest that has failed says so at once, or not at all
	if sendErr == nil {
		limit, sendErr = stepTimeout, noAnswer(stepTimeout)
	}
	timer := time.AfterFunc(limit, func() { cancel(sendErr) })
	defer timer.Stop()
	<-answered
	if answerErr != nil {
		return "", answerErr
	}
	digest = hex.EncodeToString(sum.Sum(nil))
	fields := strings.Fields(answer)
	switch {
	case len(fields) == 0 || fields[0] != fmt.Sprint(size):
		return "", fmt.Errorf("%w: of %d bytes there are %s", ErrTransfer, size, answer)
	case len(fields) > 1 && fields[1] != digest:
		return "", fmt.Errorf("%w: its checksum is wrong", ErrTransfer)
	}
	return digest, nil
}

// sendParts sends what the guest waits for, unless it answers too early.
func (s *session) sendParts(from io.Reader, size int64, answered <-chan struct{}) error {
	const mebibyte = 1 << 20
	said := time.Now()
	for sent, part := int64(0), make([]byte, partSize); sent < size; {
		select {
		case <-answered:
			return nil // and the answer says why
		default:
		}
		n, err := io.ReadFull(from, part[:min(partSize, size-sent)])
		if err != nil {
			return fmt.Errorf("read the agent: %w", err)
		}
		if err := s.send(time.Now().Add(stepTimeout), part[:n]); err != nil {
			return err
		}
		sent += int64(n)
		if time.Since(said) >= slow {
			said = time.Now()
			s.out(fmt.Sprintf("sent %.1f of %.1f MiB", float64(sent)/mebibyte, float64(size)/mebibyte))
		}
	}
	// A damaged agent may show at its end only.
	if n, err := from.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return errors.Join(fmt.Errorf("read the agent: it does not end after %d bytes", size), err)
	}
	return nil
}
