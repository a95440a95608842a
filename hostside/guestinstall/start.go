package guestinstall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// StartTimeout bounds a Dial as a whole; each of its steps has a limit of its own.
const StartTimeout = 10 * time.Minute

// LoginTimeout is how long the way to a shell may take, and so to an agent behind it.
const LoginTimeout = loginTimeout

// places are where agents are kept in the guest, for root alone, the first that will
// do. Both survive the VM's restart. The first is the usual one; where it may hold no
// programs, the second does (on systems whose /usr is read-only, it leads to /var).
var places = []string{"/var/lib/vmbridge", "/usr/local/lib/vmbridge"}

// Starter runs the agent in a VM, through a shell there. Its methods are for one
// goroutine at a time.
type Starter struct {
	// Way leads to the shell.
	Way transport.Way
	// Agent, Out and Stderr are as in Config. Stderr hears the agent too.
	Agent       func(machine string) (io.ReadCloser, int64, error)
	Out, Stderr func(line string)

	agents   map[string]identity // by machine
	failures int                 // in a row
}

// maxRest is how long a Starter rests between tries that fail, at most. Each starts
// several programs of the product's, whose VM may be off for days.
const maxRest = 4 * time.Second

// identity tells agents apart.
type identity struct {
	digest string
	size   int64
}

// Dial starts the agent and gives its standard input and output. The guest has it
// from an earlier time, or gets it. It ends with the connection.
func (s *Starter) Dial(ctx context.Context) (net.Conn, error) {
	if s.failures > 1 {
		select {
		case <-time.After(min(time.Duration(s.failures-1)*time.Second, maxRest)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	conn, err := s.dial(ctx)
	if s.failures++; err == nil {
		s.failures = 0
	}
	return conn, err
}

func (s *Starter) dial(ctx context.Context) (net.Conn, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	sh, err := openShell(ctx, s.Way.Shell, s.Stderr)
	if err != nil {
		return nil, err
	}
	conn, err := s.start(ctx, &session{shell: sh, command: s.Way.Shell, out: s.Out})
	if err != nil {
		sh.close()
		return nil, err
	}
	return conn, nil
}

// check asks the product for the VM.
func (s *Starter) check(ctx context.Context) error {
	if s.Way.Check == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stepTimeout, noAnswer(stepTimeout))
	defer cancel()
	c, err := dialCommand(ctx, s.Way.Check, s.Stderr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer c.Close()
	if _, err = io.Copy(io.Discard, c); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", s.Way.Check, context.Cause(ctx))
	}
	var exit *transport.ExitError
	if errors.As(err, &exit) {
		err = exit
	}
	return s.hint(s.Way.Check, err)
}

// hint says where to look for a VM that cannot be entered.
func (s *Starter) hint(command string, err error) error {
	err = fmt.Errorf("%s: %w", command, err)
	var exit *transport.ExitError
	missing := errors.As(err, &exit) && exit.State.ExitCode() == notFound
	if missing || (exit == nil && !errors.Is(err, ErrHungUp)) {
		return err
	}
	return fmt.Errorf("%w; is the VM there, and does it run? %s tells", err, s.Way.List)
}

// notFound is a shell's exit status for a program that there is none of.
const notFound = 127

func (s *Starter) start(ctx context.Context, sh *session) (net.Conn, error) {
	machine, err := sh.hello(ctx)
	if err != nil {
		return nil, s.hint(s.Way.Shell, err)
	}
	agent, err := s.identify(machine)
	if err != nil {
		return nil, err
	}
	found, err := sh.startAgent(ctx, agent)
	if err == nil && !found {
		if err = s.copyAgent(ctx, sh, machine, agent); err != nil {
			return nil, err
		}
		found, err = sh.startAgent(ctx, agent)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("start the agent: %w", err)
	case !found:
		return nil, fmt.Errorf("start the agent: %w: it has gone again", ErrFailed)
	}
	return sh.release(ctx)
}

// identify reads the agent for a machine, once: it is compressed.
func (s *Starter) identify(machine string) (identity, error) {
	if known, ok := s.agents[machine]; ok {
		return known, nil
	}
	agent, size, err := s.Agent(machine)
	if err != nil {
		return identity{}, err
	}
	defer agent.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, agent); err != nil {
		return identity{}, fmt.Errorf("read the agent: %w", err)
	}
	if s.agents == nil {
		s.agents = map[string]identity{}
	}
	s.agents[machine] = identity{hex.EncodeToString(sum.Sum(nil)), size}
	return s.agents[machine], nil
}

// name is the agent's file in the guest. Another version has another.
func (a identity) name() string { return "vmbridge-guest-" + a.digest[:16] }

// startAgent makes the shell the agent, where the guest has it whole: the machine may
// have lost its power while it was written. What is printed after the answer is the
// agent's.
func (s *session) startAgent(ctx context.Context, agent identity) (found bool, err error) {
	ctx, done := s.within(ctx, stepTimeout, "looking for the agent in the guest")
	defer done()
	order := fmt.Sprintf(`for d in %s; do f=$d/%s; test -O "$d" && test -f "$f" && test -x "$f" && test "$(wc -c < "$f")" -eq %d || continue; `+
		`case "$(sha256sum < "$f" 2> /dev/null)" in ''|%s*) `, strings.Join(places, " "), agent.name(), agent.size, agent.digest) +
		// The agent is to have what a program usually has.
		`cd /; umask 022; trap - EXIT HUP INT TERM PIPE; ` + s.say(starting, `""`) + `; exec "$f" serve --stdio;; esac; done; ` +
		s.say("missing", `""`)
	if err := s.order(order); err != nil {
		return false, err
	}
	word, _, err := s.answer(ctx, nil, starting, "missing")
	return word == starting, err
}

// copyAgent puts the agent into the guest, in place of any other version. Two that do
// so at once do not disturb each other: each copies for itself, and a file that is in
// its place is whole.
func (s *Starter) copyAgent(ctx context.Context, sh *session, machine string, known identity) error {
	agent, size, err := s.Agent(machine)
	if err != nil {
		return err
	}
	defer agent.Close()
	s.Out(fmt.Sprintf("copying the agent into the guest, %.1f MiB", float64(size)/(1<<20)))
	// A place has to take a program, and run it.
	makeDirectory := `for d in ` + strings.Join(places, " ") + `; do ` +
		`mkdir -p "$d" && test -O "$d" && chmod 700 "$d" && t=$(mktemp -d "$d/.new.XXXXXX") && ` +
		`printf '#!/bin/sh\n' > "$t/probe" && chmod 700 "$t/probe" && "$t/probe" && break; ` +
		`test -z "$t" || rm -rf "$t"; t=; done; test -n "$t"`
	if err := sh.prepare(ctx, makeDirectory); err != nil {
		return fmt.Errorf("make a directory for the agent, in %s: %w", strings.Join(places, " or "), err)
	}
	digest, err := sh.transfer(ctx, agent, size)
	if err != nil {
		return fmt.Errorf("send the agent: %w", err)
	}
	if digest != known.digest {
		delete(s.agents, machine) // one that lies beside this program may be built anew
		return fmt.Errorf("send the agent: it has changed meanwhile")
	}
	if err := sh.keepAgent(ctx, known); err != nil {
		return fmt.Errorf("keep the agent in the guest: %w", err)
	}
	return nil
}

// keepAgent moves the agent from $t to its place, when it is sure that it runs here
// and is on the disk. Others go, with what dead shells have left an hour ago: an agent
// that runs does not need its file.
func (s *session) keepAgent(ctx context.Context, agent identity) error {
	ctx, done := s.within(ctx, installTimeout, "keeping the agent in the guest")
	defer done()
	order := `n=$t/vmbridge-guest; f=$d/` + agent.name() + `; { chmod 700 "$n" && "$n" version > /dev/null && ` +
		`{ sync "$n" 2> /dev/null || sync; } && mv -f "$n" "$f"; } 2>&1; ` + s.say("kept", `"$?"`) +
		`; for o in "$d"/vmbridge-guest-*; do test "$o" = "$f" || rm -f "$o"; done; ` +
		`find "$d" -name '.new.*' -mmin +60 -exec rm -rf {} + 2> /dev/null; rm -rf "$t"; t=`
	if err := s.order(order); err != nil {
		return err
	}
	return s.succeeds(ctx, s.out, "kept")
}
