package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// commandTimeout bounds a command of a service manager.
	commandTimeout = 30 * time.Second
	// shownLines is how much of the log is shown when it does not.
	shownLines = 5
)

// manager is a service manager of the guest.
type manager interface {
	name() string
	// installed tells whether its programs are there, running whether it is this
	// machine's.
	installed() bool
	running() bool
	// unit is the file that describes the service.
	unit() unitFile
	// enable has the service started by every boot.
	enable(context.Context) error
	// restart starts the service anew, and returns when the agent serves.
	restart(context.Context) error
	// lastWords is what the agent has logged last.
	lastWords(context.Context) ([]string, error)
	// disable stops the service and keeps boots from starting it; forget is
	// called when the unit has been removed.
	disable(context.Context) error
	forget(context.Context) error
}

type unitFile struct {
	path string
	mode fs.FileMode
	text string
}

func (g *guest) managers() []manager { return []manager{systemd{g}, openRC{g}} }

// findManager takes the manager that runs, else one that is installed, else nil.
func (g *guest) findManager() manager {
	for _, is := range []func(manager) bool{manager.running, manager.installed} {
		for _, m := range g.managers() {
			if is(m) {
				return m
			}
		}
	}
	return nil
}

// commands runs the guest's programs.
type commands struct{ dirs []string }

// newCommands looks for programs where root's shell does: what ssh and sudo set
// as the path may lack the directories of system programs.
func newCommands(root string) commands {
	var c commands
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	for _, dir := range dirs {
		if filepath.IsAbs(dir) {
			c.dirs = append(c.dirs, filepath.Join(root, dir))
		}
	}
	return c
}

func (c commands) find(program string) (path string, ok bool) {
	for _, dir := range c.dirs {
		path := filepath.Join(dir, program)
		if _, err := exec.LookPath(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// run gives what the program prints. The error has it, too.
func (c commands) run(ctx context.Context, program string, args ...string) (string, error) {
	path, ok := c.find(program)
	if !ok {
		return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // a service may hold its output open
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return text, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	line := program + " " + strings.Join(args, " ")
	if text != "" { // further lines say where to read more
		first, _, _ := strings.Cut(text, "\n")
		return text, fmt.Errorf("%s: %w: %s", line, err, first)
	}
	return text, fmt.Errorf("%s: %w", line, err)
}

// lastLines gives the end of a log.
func lastLines(log string) []string {
	lines := strings.FieldsFunc(log, func(r rune) bool { return r == '\n' || r == '\r' })
	return lines[max(len(lines)-shownLines, 0):]
}
