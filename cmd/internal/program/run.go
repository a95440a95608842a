package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
)

// Exit statuses, which scripts rely on.
const (
	ExitDone       = 0
	ExitFailed     = 1
	ExitUsage      = 2
	ExitRefused    = 3 // by policy or isolation
	ExitNotRunning = 4 // no daemon
)

// usageError marks an error as the caller's.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err as wrong usage, which Run turns into ExitUsage.
func Usage(err error) error { return usageError{err} }

// Run executes the command tree and gives the exit status. An error becomes
// one line on stderr; classify may give it a status of its own, or 0 to leave
// it to Run. What fails before a command starts (unknown commands and flags,
// wrong arguments) is wrong usage.
func Run(root *cobra.Command, stderr io.Writer, classify func(error) int) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer cancelOnSignal(cancel)()

	started := false
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitDone
	}
	wrongUsage := usageError{}
	if !started || errors.As(err, &wrongUsage) {
		fmt.Fprintf(stderr, "%s: %s: see %s --help\n", root.Name(), OneLine(err.Error()), cmd.CommandPath())
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %s\n", root.Name(), OneLine(err.Error()))
	if status := classify(err); status != 0 {
		return status
	}
	return ExitFailed
}

// cancelOnSignal cancels at the first signal that asks the program to end, and
// brings the default action back before that, so that a second one ends it at
// once. What it returns undoes it.
func cancelOnSignal(cancel context.CancelFunc) (undo func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup wants it
		signal.Notify(signals, syscall.SIGHUP) // the terminal is closed
	}
	undone := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-signals:
			signal.Stop(signals)
			cancel()
		case <-undone:
			signal.Stop(signals)
		}
	}()
	return func() {
		close(undone)
		<-finished
	}
}

// OneLine joins the lines of joined and nested errors. What a terminal would take
// for a command is replaced: arguments may come from anywhere.
func OneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.Join(lines, "; "))
}
