package vhostdevice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/vhostvsock"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

const (
	// childIdleExit: a child without a QEMU waits this long for a daemon to come
	// back.
	childIdleExit = time.Minute
	// startTimeout bounds the wait for a child to answer, on a busy machine.
	startTimeout = 10 * time.Second
	startPoll    = 10 * time.Millisecond
)

// Keeper keeps the device of a link running.
type Keeper struct {
	endpoint transport.Endpoint
	logFile  string
	log      logrus.FieldLogger
	program  string
	turn     chan struct{} // holds a token while nobody is in Ensure
	child    *child        // the last one that was started, with the turn
	known    int           // the pid that was logged last, with the turn
}

// NewKeeper returns a Keeper for a vhost-user endpoint. The child, which is this
// program itself, logs to a file.
func NewKeeper(endpoint transport.Endpoint, logFile string, log logrus.FieldLogger) (*Keeper, error) {
	if !vhostvsock.Supported() {
		return nil, ErrUnsupported
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	k := &Keeper{endpoint: endpoint, logFile: logFile, log: log, program: program, turn: make(chan struct{}, 1)}
	k.turn <- struct{}{}
	return k, nil
}

// Ensure finds the device running, or starts it. It takes a round trip on a unix
// socket when it runs.
func (k *Keeper) Ensure(ctx context.Context) error {
	select {
	case <-k.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { k.turn <- struct{}{} }()
	s, err := ask(ctx, k.endpoint.HybridEndpoint().Path())
	if errors.Is(err, errAbsent) {
		if s, err = k.start(ctx); err != nil {
			return fmt.Errorf("start the device at %s: %w", k.endpoint.Path(), err)
		}
	}
	if err != nil {
		return err
	}
	return k.adopt(s)
}

// adopt takes over whichever device runs.
func (k *Keeper) adopt(s Status) error {
	if s.CID != k.endpoint.CID() {
		return fmt.Errorf("a device with CID %d runs at %s (pid %d), and the link wants CID %d: "+
			"let the link say cid=%[1]d, or end the virtual machine and then the device (kill %[3]d)",
			s.CID, k.endpoint.Path(), s.PID, k.endpoint.CID())
	}
	if s.PID != k.known {
		k.known = s.PID
		k.log.WithFields(logrus.Fields{"pid": s.PID, "version": s.Version, "path": k.endpoint.Path(),
			"started": k.child != nil && k.child.pid == s.PID}).Info("the vsock device runs")
	}
	return nil
}

// start starts a child, unless there is one already that has yet to answer, and
// waits until somebody answers, which may be another daemon's.
func (k *Keeper) start(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for started := false; ; {
		ended := k.child == nil || k.child.ended() // before it is asked: what answers later is another one
		s, err := ask(ctx, k.endpoint.HybridEndpoint().Path())
		switch {
		case !errors.Is(err, errAbsent):
			return s, err
		case ended && started:
			return Status{}, k.child.failure()
		case ended:
			if k.child, err = k.startChild(); err != nil {
				return Status{}, err
			}
			started = true
		}
		select {
		case <-tick.C:
		case <-k.child.done:
		case <-ctx.Done():
			return Status{}, fmt.Errorf("it does not answer (its log is %s): %w", k.logFile, ctx.Err())
		}
	}
}

func (k *Keeper) startChild() (*child, error) {
	if err := os.MkdirAll(filepath.Dir(k.logFile), 0o700); err != nil {
		return nil, err
	}
	// The child could not tell that it cannot log.
	log, err := os.OpenFile(k.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := log.Stat()
	_ = log.Close()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(k.program, "device", "--socket", k.endpoint.Path(),
		"--cid", strconv.FormatUint(uint64(k.endpoint.CID()), 10),
		"--idle-exit", childIdleExit.String(), "--log-file", k.logFile)
	cmd.Dir = "/"
	cmd.Env = []string{} // it needs none
	if err := detach(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{pid: cmd.Process.Pid, logFile: k.logFile, logged: info.Size(), done: make(chan struct{})}
	// This goroutine ends with the child, which nobody ends: it may outlive the
	// Keeper, to leave no zombie.
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}
