//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A spawner starts processes in namespaces. All come from one thread that
// lives as long as the spawner: the kernel kills a child when the thread that
// started it ends, and a thread of Go's pool may end at any time.
type spawner struct {
	dir      string // log files
	requests chan func()
	ended    chan struct{}
	stopOnce sync.Once

	mu        sync.Mutex
	processes []*process
}

func newSpawner(dir string) *spawner {
	s := &spawner{dir: dir, requests: make(chan func()), ended: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	runtime.LockOSThread() // never unlocked: the thread and its children end together
	defer close(s.ended)
	for request := range s.requests {
		request()
	}
}

// start runs cmd inside ns. Its standard error goes to a log file, and its
// standard output too unless the caller has set one.
func (s *spawner) start(ns *namespace, name string, cmd *exec.Cmd) (*process, error) {
	log, err := os.Create(filepath.Join(s.dir, strings.ReplaceAll(name, " ", "-")+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own descriptor
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	// A process group of its own keeps the terminal's interrupt away: this
	// process ends its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	result := make(chan error)
	s.requests <- func() { result <- startIn(ns, cmd) }
	if err := <-result; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go p.wait()
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	return p, nil
}

// startIn starts cmd from inside ns and returns the thread to where it was.
func startIn(ns *namespace, cmd *exec.Cmd) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := ns.enter(); err != nil {
		return err
	}
	err = cmd.Start()
	return errors.Join(err, (&namespace{file: home}).enter())
}

// stop ends every process and waits for them.
func (s *spawner) stop() {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.processes {
			p.cmd.Process.Signal(syscall.SIGTERM) // fails only where there is nothing left to end
		}
		timeout := time.After(2 * time.Second)
		for _, p := range s.processes {
			select {
			case <-p.done:
			case <-timeout:
				p.cmd.Process.Kill()
				<-p.done
				closed := make(chan time.Time)
				close(closed)
				timeout = closed // the others have had the same time
			}
		}
		close(s.requests)
		<-s.ended
	})
}

// A process is a child: a worker or a part of a subject.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended
	err  error         // how, valid after done
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended returns an error that quotes the end of the log if the process has ended.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%v): %s", p.name, p.err, p.lastWords())
	default:
		return nil
	}
}

// lastWords returns the end of the log on one line.
func (p *process) lastWords() string {
	const limit = 300
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	if len(words) > limit {
		words = "... " + words[len(words)-limit:]
	}
	return words
}
