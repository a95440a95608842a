package transport

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeConn is a connection made of two pipes. The files must be pollable, so
// that deadlines work and Close ends what waits.
type pipeConn struct {
	r, w  *os.File
	addr  pipeAddr
	close func() error
}

func newPipeConn(r, w *os.File, addr pipeAddr) *pipeConn {
	return &pipeConn{r: r, w: w, addr: addr, close: sync.OnceValue(func() error {
		return errors.Join(w.Close(), r.Close())
	})}
}

// pipeAddr is the address of both ends: "exec" and the command, or "stdio".
type pipeAddr struct{ network, name string }

func (a pipeAddr) Network() string { return a.network }
func (a pipeAddr) String() string  { return a.name }

var _ net.Conn = (*pipeConn)(nil)

func (c *pipeConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	return n, c.opError("read", err)
}

func (c *pipeConn) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	return n, c.opError("write", err)
}

// Close ends whatever waits in Read and Write.
func (c *pipeConn) Close() error { return c.opError("close", c.close()) }

func (c *pipeConn) LocalAddr() net.Addr  { return c.addr }
func (c *pipeConn) RemoteAddr() net.Addr { return c.addr }

func (c *pipeConn) SetDeadline(t time.Time) error {
	return c.opError("set", errors.Join(c.r.SetDeadline(t), c.w.SetDeadline(t)))
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	return c.opError("set", c.r.SetReadDeadline(t))
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	return c.opError("set", c.w.SetWriteDeadline(t))
}

// WriteRawConn gives access to the pipe that is written to.
func (c *pipeConn) WriteRawConn() (syscall.RawConn, error) { return c.w.SyscallConn() }

// opError makes the errors of files those of connections.
func (c *pipeConn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: c.addr.network, Addr: c.addr, Err: err}
}

// pipeEnd says which end of a pipe this process keeps.
type pipeEnd int

const (
	readEnd pipeEnd = iota
	writeEnd
)
