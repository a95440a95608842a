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

	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

const (
	// loginTimeout is how long the way to the shell may take; somebody may have
	// to type a password.
	loginTimeout = 2 * time.Minute
	// stepTimeout bounds a small step, and each part of a transfer.
	stepTimeout = 30 * time.Second
	// installTimeout is for the agent to install itself, which waits until the
	// service runs.
	installTimeout = 2 * time.Minute
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

// Config says what to install, and through what.
type Config struct {
	// Command leads to a shell of root in the guest (see ShellCommand).
	Command string
	// Key is the link's.
	Key linkkey.Key
	// Agent opens the agent for what "uname -m" says, and tells its size; it is
	// Agent, except in tests.
	Agent func(machine string) (io.ReadCloser, int64, error)
	// Out hears of progress and what the agent prints, line by line; Stderr what
	// the command writes to its standard error. Both are safe to print.
	Out, Stderr func(line string)
}

// Run installs the agent. It has cleaned up in the guest when it returns, unless
// the guest cannot be reached any more.
func Run(ctx context.Context, config Config) error {
	s, err := openShell(ctx, config.Command, config.Stderr)
	if err != nil {
		return err
	}
	defer s.close()
	i := &installation{Config: config, shell: s}
	machine, err := i.hello(ctx)
	if err != nil {
		return err
	}
	agent, size, err := config.Agent(machine)
	if err != nil {
		return err
	}
	defer agent.Close()
	if err := i.prepare(ctx); err != nil {
		return fmt.Errorf("make a temporary directory in the guest: %w", err)
	}
	if err := i.transfer(ctx, agent, size); err != nil {
		return fmt.Errorf("send the agent: %w", err)
	}
	if err := i.install(ctx); err != nil {
		return fmt.Errorf("vmbridge-guest install: %w", err)
	}
	return i.finish(ctx)
}

type installation struct {
	Config
	*shell
}

// within bounds a step, and says what it is when it takes its time.
func (i *installation) within(ctx context.Context, limit time.Duration, what string) (context.Context, func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, noAnswer(limit))
	said := make(chan struct{})
	timer := time.AfterFunc(slow, func() {
		defer close(said)
		i.Out(what)
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
func (i *installation) order(line string) error {
	return i.send(time.Now().Add(stepTimeout), []byte(line+"\n"))
}

// hello learns where we are. Whatever shell answers is replaced by sh: a login
// shell may be another kind, and print prompts.
func (i *installation) hello(ctx context.Context) (machine string, err error) {
	ctx, done := i.within(ctx, loginTimeout, "waiting for a shell in the guest: "+i.Command)
	defer done()
	if err := i.order(`exec sh -c '` +
		i.say("hello", `"$(uname -m) $(id -u) $(test -t 0 && echo terminal)"`) + `; exec sh'`); err != nil {
		// A command that has failed has more to say than that it is gone.
		if _, ended := i.answer(ctx, "hello", nil); ended != nil {
			return "", ended
		}
		return "", err
	}
	answer, err := i.answer(ctx, "hello", nil)
	if err != nil {
		return "", err
	}
	fields := strings.Fields(answer)
	if len(fields) < 2 {
		return "", fmt.Errorf("%w: uname or id is missing: %q", ErrFailed, answer)
	}
	if fields[1] != "0" {
		return "", fmt.Errorf("%w but user %s's: log in as root, or put sudo before vmbridge-guest, as in exec:ssh vm sudo vmbridge-guest serve --stdio",
			ErrNotRoot, fields[1])
	}
	if len(fields) > 2 {
		return "", ErrTerminal
	}
	return fields[0], nil
}

// directory is where the program goes at last.
const directory = "/usr/local/bin"

func (i *installation) prepare(ctx context.Context) error {
	ctx, done := i.within(ctx, stepTimeout, "preparing the guest")
	defer done()
	// The traps stand before there is something to remove. Answers that nobody
	// hears any more must not kill the shell either.
	order := `umask 077; t=; trap 'test -z "$t" || rm -rf "$t"' EXIT; trap 'exit 1' HUP INT TERM; trap '' PIPE; ` +
		`t=$(mkdir -p ` + directory + ` && mktemp -d ` + directory + `/.vmbridge-install.XXXXXX); ` + i.say("prepared", `"$?"`)
	if err := i.order(order); err != nil {
		return err
	}
	return succeeded(i.answer(ctx, "prepared", nil))
}

// succeeded reads an answer that is an exit status.
func succeeded(status string, err error) error {
	if err == nil && status != "0" {
		err = fmt.Errorf("%w: exit status %s", ErrFailed, status)
	}
	return err
}

// transfer sends the agent and checks what has arrived.
func (i *installation) transfer(ctx context.Context, agent io.Reader, size int64) error {
	file := `"$t/vmbridge-guest"`
	order := i.say("ready", `""`) + fmt.Sprintf("; head -c %d > %s || { ", size, file) + i.say("failed", `"$?"`) +
		`; rm -rf "$t"; cat > /dev/null; exit 1; }; ` +
		i.say("sent", `"$(wc -c < `+file+`) $(sha256sum < `+file+` 2> /dev/null)"`)
	if err := i.order(order); err != nil {
		return err
	}
	ready, done := i.within(ctx, stepTimeout, "waiting for the guest")
	_, err := i.answer(ready, "ready", nil)
	done()
	if err != nil {
		return err
	}
	answered := make(chan struct{})
	var answer string
	var answerErr error
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		defer close(answered)
		answer, answerErr = i.answer(waiting, "sent", nil)
	}()
	digest := sha256.New()
	sendErr := i.sendParts(io.TeeReader(agent, digest), size, answered)
	limit := slow // a guest that has failed says so at once, or not at all
	if sendErr == nil {
		limit, sendErr = stepTimeout, noAnswer(stepTimeout)
	}
	timer := time.AfterFunc(limit, func() { cancel(sendErr) })
	defer timer.Stop()
	<-answered
	if answerErr != nil {
		return answerErr
	}
	fields := strings.Fields(answer)
	switch {
	case len(fields) == 0 || fields[0] != fmt.Sprint(size):
		return fmt.Errorf("%w: of %d bytes there are %s", ErrTransfer, size, answer)
	case len(fields) > 1 && fields[1] != hex.EncodeToString(digest.Sum(nil)):
		return fmt.Errorf("%w: its checksum is wrong", ErrTransfer)
	}
	return nil
}

// sendParts sends what the guest waits for, unless it answers too early.
func (i *installation) sendParts(from io.Reader, size int64, answered <-chan struct{}) error {
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
		if err := i.send(time.Now().Add(stepTimeout), part[:n]); err != nil {
			return err
		}
		sent += int64(n)
		if time.Since(said) >= slow {
			said = time.Now()
			i.Out(fmt.Sprintf("sent %.1f of %.1f MiB", float64(sent)/mebibyte, float64(size)/mebibyte))
		}
	}
	// A damaged agent may show at its end only.
	if n, err := from.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return errors.Join(fmt.Errorf("read the agent: it does not end after %d bytes", size), err)
	}
	return nil
}

// install runs the agent that has arrived; what it prints is shown.
func (i *installation) install(ctx context.Context) error {
	ctx, done := i.within(ctx, installTimeout, "installing in the guest")
	defer done()
	order := `chmod 755 "$t/vmbridge-guest"; ` + i.say("key", `""`) +
		`; head -n 1 | "$t/vmbridge-guest" install --key-stdin; ` + i.say("installed", `"$?"`)
	if err := i.order(order); err != nil {
		return err
	}
	if _, err := i.answer(ctx, "key", nil); err != nil {
		return err
	}
	if err := i.order(i.Key.String()); err != nil {
		return err
	}
	return succeeded(i.answer(ctx, "installed", i.Out))
}

// finish has the guest clean up, and waits until it has.
func (i *installation) finish(ctx context.Context) error {
	ctx, done := i.within(ctx, stepTimeout, "cleaning up in the guest")
	defer done()
	if err := i.order(`rm -rf "$t"; t=; ` + i.say("clean", `"$?"`) + `; exit`); err != nil {
		return err
	}
	return succeeded(i.answer(ctx, "clean", nil))
}
