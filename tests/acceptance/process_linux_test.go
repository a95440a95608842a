package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
)

// process is a child of a bed; what it prints goes to a file.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how, valid after done

	quits bool // the test has it tell of its goroutines
}

// spawn starts a command in a namespace. When the test ends it is killed, if it
// still runs, and its log is searched for what no program may say.
func (b *bed) spawn(ns *netns.Namespace, name string, cmd *exec.Cmd) *process {
	b.t.Helper()
	log, err := os.CreateTemp(b.dir, name+"-*.log")
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close() // the child has its own descriptor
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	p := &process{t: b.t, name: filepath.Base(log.Name()), cmd: cmd, log: log.Name(), done: make(chan struct{})}
	if err := ns.Start(cmd); err != nil {
		b.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	b.t.Cleanup(func() {
		p.kill()
		p.review()
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process as a crash does, and waits for its end.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// terminate asks the process to end, and fails the test unless it does so
// without an error.
func (p *process) terminate() {
	p.t.Helper()
	if p.end(syscall.SIGTERM); p.err != nil {
		p.t.Errorf("%s ended with %v", p.name, p.err)
	}
}

func (p *process) end(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("%s has not ended within %v of %v", p.name, patience, signal)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// output is everything that the process has printed.
func (p *process) output() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	return string(text)
}

// review finds what no program may say, and shows the log of a failed test.
func (p *process) review() {
	text := p.output()
	for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "goroutine 1 ["} {
		if strings.Contains(text, bad) && !(p.quits && bad == "goroutine 1 [") {
			p.t.Errorf("%s says %q", p.name, bad)
		}
	}
	if p.t.Failed() {
		const most = 8 << 10
		if len(text) > most {
			text = text[:most/2] + "\n[...]\n" + text[len(text)-most/2:]
		}
		p.t.Logf("%s:\n%s", p.name, text)
	}
}

// runFor runs a command to its end, which must come in time, and gives what it
// printed on standard output.
func runFor(ns *netns.Namespace, limit time.Duration, cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := ns.Start(cmd); err != nil {
		return "", err
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		err = fmt.Errorf("not done within %v: %w", limit, err)
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// patience is how long a test waits for what must happen but is not timed.
const patience = 30 * time.Second

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}
