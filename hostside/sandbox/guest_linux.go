package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// An agent that dies is started again at once, and one that keeps dying
	// once a second.
	minRestart = 20 * time.Millisecond
	maxRestart = time.Second
	// steadyAfter is how long an agent must live to be trusted anew.
	steadyAfter = 10 * time.Second
	// stopGrace is how long the agent may take to end by itself.
	stopGrace = 2 * time.Second
	// firstListen is how long Start waits for the agent to listen; it takes some
	// 20 ms where eBPF programs are to be loaded.
	firstListen = time.Second
)

// guest is the goroutine that keeps an agent running, and what it needs.
type guest struct {
	config Config
	agent  string
	socket string
	netNS  string
	logger *logrus.Entry

	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	closing  sync.Once
	closeErr error
}

func start(ctx context.Context, config Config) (*Sandbox, error) {
	socket, err := socketPath(config.Home, config.Name)
	if err != nil {
		return nil, err
	}
	agent, err := findAgent(config.AgentPath)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	netNS := filepath.Join(netNSDir, nsName(config.Home, config.Name))
	ns, adopted, err := ensureNetNS(netNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()

	ctx, cancel := context.WithCancel(ctx)
	g := &guest{
		config: config, agent: agent, socket: socket, netNS: netNS,
		logger: config.Logger.WithField("sandbox", config.Name),
		cancel: cancel, done: make(chan struct{}),
	}
	started := make(chan error)
	// The thread's end, too, would be taken for the parent's (Pdeathsig): it
	// lives as long as run does, and so as long as any agent.
	onOwnThread(func() { g.run(ctx, ns, started) })
	if err := <-started; err != nil {
		return nil, errors.Join(err, g.close())
	}
	g.awaitSocket(ctx)
	if adopted {
		g.logger.WithField("netns", netNS).Info("sandbox adopted from an earlier run")
	} else {
		g.logger.WithField("netns", netNS).Info("sandbox made")
	}
	return &Sandbox{netNS: netNS, socket: socket, guest: g}, nil
}

// findAgent looks for the agent beside our own program, then in $PATH, so that
// a build tree and an installation both use the agent that they came with.
func findAgent(path string) (string, error) {
	if path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("agent: %w", err)
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "vmbridge-guest")
		if _, err := exec.LookPath(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("vmbridge-guest")
	if err != nil {
		return "", ErrNoAgent
	}
	return path, nil
}

// run keeps an agent running in ns until ctx ends, on a thread of its own. It
// tells started how the first start went, and returns when that failed.
func (g *guest) run(ctx context.Context, ns *os.File, started chan<- error) {
	defer close(g.done)
	if err := enterNetNS(ns); err != nil {
		started <- err
		return
	}
	pause := minRestart
	for first := true; ; first = false {
		begin := time.Now()
		cmd, err := g.startAgent(ctx)
		if first {
			started <- err
			if err != nil {
				return
			}
		}
		if err == nil {
			err = cmd.Wait()
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) >= steadyAfter {
			pause = minRestart
		}
		g.logger.WithError(exitError(err)).WithField("in", pause).Warn("agent ended; starting it again")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRestart)
	}
}

// startAgent starts the agent in the calling thread's namespace. It gets
// SIGTERM when ctx ends and SIGKILL when it takes too long then, or when this
// process dies.
func (g *guest) startAgent(ctx context.Context) (*exec.Cmd, error) {
	// An agent that was killed leaves its socket, and nobody else may use this
	// one: the daemon has claimed its home.
	if err := os.Remove(g.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	args := append([]string{"serve", "--listen", "unix://" + g.socket, "--key", g.config.KeyFile, "--log-format", "json"},
		g.config.AgentArgs...)
	cmd := exec.CommandContext(ctx, g.agent, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.Stderr = &logLines{logger: g.logger}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // what is typed on the daemon's terminal is for the daemon
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	return cmd, nil
}

// awaitSocket gives the agent a moment to listen, so that the first dial finds
// it. One that takes longer is found by a later dial.
func (g *guest) awaitSocket(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstListen)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(g.socket); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// exitError says what an agent's end without an error was.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (g *guest) close() error {
	g.closing.Do(func() {
		g.cancel()
		<-g.done
		g.closeErr = removeNetNS(g.netNS)
		if err := os.Remove(g.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			g.closeErr = errors.Join(g.closeErr, err)
		}
	})
	return g.closeErr
}
