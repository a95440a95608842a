package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// exitGrace is how long a command may take to end after its standard
	// input has been closed, and again after it has been asked to.
	exitGrace = time.Second
	// explainWait is how long a read or write that failed waits to learn
	// whether the command has ended, and how.
	explainWait = time.Second
)

// ExitError says that the command of an exec endpoint has ended by failing. It
// comes from Read or Write.
type ExitError struct {
	State *os.ProcessState
	// LastLine is the last line that the command wrote to its standard error.
	LastLine string
}

// Error explains the exit status.
func (e *ExitError) Error() string {
	s := "the command ended with " + e.State.String()
	switch e.State.ExitCode() {
	case 126:
		s += " (it cannot be run)"
	case 127:
		s += " (not found)"
	case 255:
		s += " (as ssh does when it cannot connect or log in)"
	}
	if e.LastLine != "" {
		s += ": " + e.LastLine
	}
	return s
}

// commandConn is the standard input and output of a command.
type commandConn struct {
	*pipeConn
	cmd    *exec.Cmd
	stderr *LineWriter
	// exited is closed when the command has been waited for.
	exited  chan struct{}
	closing atomic.Bool
	close   func() error
}

var _ net.Conn = (*commandConn)(nil)

// startCommand runs command, whose standard input and output are the
// connection. The process ends with the connection.
func startCommand(ctx context.Context, command string, stderr func(string)) (_ net.Conn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd, err := shellCommand(command)
	if err != nil {
		return nil, err
	}
	inR, inW, err := pipe(writeEnd)
	if err != nil {
		return nil, err
	}
	defer inR.Close()
	outR, outW, err := pipe(readEnd)
	if err != nil {
		_ = inW.Close()
		return nil, err
	}
	defer outW.Close()

	c := &commandConn{
		pipeConn: newPipeConn(outR, inW, pipeAddr{"exec", command}),
		cmd:      cmd,
		stderr:   &LineWriter{Line: stderr},
		exited:   make(chan struct{}),
	}
	c.close = sync.OnceValue(c.stop)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, c.stderr
	cmd.WaitDelay = exitGrace // for what the command has left behind with its standard error
	if err := cmd.Start(); err != nil {
		_ = c.pipeConn.Close()
		return nil, err
	}
	go func() { // stop waits for it
		_ = cmd.Wait() // ProcessState has it
		c.stderr.Flush()
		close(c.exited)
	}()
	return c, nil
}

// Read reads the command's standard output. At its end the error is io.EOF, or
// an *ExitError in a *net.OpError where the command has failed.
func (c *commandConn) Read(b []byte) (int, error) {
	n, err := c.pipeConn.Read(b)
	return n, c.explain("read", err)
}

// Write writes to the command's standard input. The error is an *ExitError in
// a *net.OpError where the command has failed.
func (c *commandConn) Write(b []byte) (int, error) {
	n, err := c.pipeConn.Write(b)
	return n, c.explain("write", err)
}

// explain turns the end of a pipe into the reason for it.
func (c *commandConn) explain(op string, err error) error {
	if err == nil || c.closing.Load() || (err != io.EOF && !errors.Is(err, errBrokenPipe)) {
		return err
	}
	wait := time.NewTimer(explainWait)
	defer wait.Stop()
	select {
	case <-c.exited:
	case <-wait.C:
		return err
	}
	if c.closing.Load() || c.cmd.ProcessState.Success() {
		return err
	}
	return c.opError(op, &ExitError{State: c.cmd.ProcessState, LastLine: c.stderr.Last()})
}

// Close ends the command and waits until it has: its input ends, a moment
// later it is asked to end, and at last it is killed.
func (c *commandConn) Close() error {
	c.closing.Store(true)
	return c.close()
}

func (c *commandConn) stop() error {
	err := c.pipeConn.Close()
	for _, end := range []func(*os.Process) error{terminate, kill} {
		grace := time.NewTimer(exitGrace)
		select {
		case <-c.exited:
			grace.Stop()
			return err
		case <-grace.C:
			_ = end(c.cmd.Process) // it may just have ended
		}
	}
	<-c.exited
	return err
}
