package transport

import (
	"io"
	"net"
	"sync"
)

// stdioListener accepts this process's standard input and output, once.
type stdioListener struct {
	addr   pipeAddr
	conn   chan net.Conn // holds the connection until it is accepted
	over   chan struct{} // closed with the connection
	closed chan struct{}
	close  func() error
}

func listenStdio() (net.Listener, error) {
	p, err := openStdio()
	if err != nil {
		return nil, err
	}
	l := &stdioListener{
		addr:   p.addr,
		conn:   make(chan net.Conn, 1),
		over:   make(chan struct{}),
		closed: make(chan struct{}),
	}
	c := &stdioConn{pipeConn: p}
	c.close = sync.OnceValue(func() error { defer close(l.over); return p.Close() })
	l.conn <- c
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		select {
		case c := <-l.conn: // nobody wanted it
			return c.Close()
		default:
			return nil
		}
	})
	return l, nil
}

// Accept returns the connection the first time. The second time it waits for
// that to be closed and returns io.EOF: there will be no other.
func (l *stdioListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, l.opError(net.ErrClosed)
	default:
	}
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.over:
		return nil, io.EOF
	case <-l.closed:
		return nil, l.opError(net.ErrClosed)
	}
}

func (l *stdioListener) opError(err error) error {
	return &net.OpError{Op: "accept", Net: l.addr.network, Addr: l.addr, Err: err}
}

// Close leaves a connection that has been accepted alone.
func (l *stdioListener) Close() error { return l.close() }

func (l *stdioListener) Addr() net.Addr { return l.addr }

// stdioConn tells the listener when it is closed.
type stdioConn struct {
	*pipeConn
	close func() error
}

func (c *stdioConn) Close() error { return c.close() }
