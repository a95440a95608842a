package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// readBytes is what one read of a connection may bring: two large frames.
const readBytes = 256 << 10

// flow is what a connection keeps by flow id: a *Stream or a *DatagramFlow.
type flow interface {
	// cut ends the flow here; with notify the peer is told.
	cut(notify bool)
}

// conn is one transport connection of a session, and the flows on it.
type conn struct {
	session *Session
	nc      net.Conn
	out     *sender
	raw     syscall.RawConn // of nc, where it splices
	splices bool            // payload moves by reference
	// heard is set by whatever arrives, and cleared by the session's watch.
	heard atomic.Bool

	mu      sync.Mutex
	flows   map[uint32]flow
	foreign int // flows that the peer opened
	closed  bool

	parser parser // the reader's own
}

func newConn(s *Session, nc net.Conn) *conn {
	c := &conn{session: s, nc: nc, out: newSender(nc), flows: map[uint32]flow{}}
	c.parser.conn = c
	if canSplice && c.out.raw != nil && splices(nc) {
		c.raw, c.splices = c.out.raw, true
	}
	return c
}

// errHungUp is what the end of a connection without a goodbye means.
var errHungUp = fmt.Errorf("the peer hung up: %w", io.EOF)

// read runs until the connection ends, and says why.
//
// In bulk, when large data frames follow each other, it reads no more than the
// next header, so that the payload is left to be spliced.
func (c *conn) read() error {
	buf := make([]byte, readBytes)
	end := 0
	bulk := false
	for {
		limit := len(buf)
		if bulk && end == 0 && c.parser.body.left == 0 {
			limit = wire.HeaderSize
		}
		n, err := c.nc.Read(buf[end:limit])
		if n > 0 {
			c.heard.Store(true)
			end += n
			used, perr := c.parser.feed(buf[:end])
			if perr != nil {
				return perr
			}
			end = copy(buf, buf[used:end])
			if bulk = c.parser.splicable(); bulk {
				if err := c.parser.splice(); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return errHungUp
		}
		if err != nil {
			return err
		}
	}
}

// add registers a flow that this side opens. It fails when the session is over.
func (c *conn) add(id uint32, f flow) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.flows[id] = f
	return nil
}

func (c *conn) lookup(id uint32) flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flows[id]
}

func (c *conn) remove(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.flows[id]; !ok {
		return
	}
	delete(c.flows, id)
	if !c.session.ours(id) {
		c.foreign--
	}
}

// cutFlows ends every flow; with notify the peer is told.
func (c *conn) cutFlows(notify bool) {
	c.mu.Lock()
	flows := make([]flow, 0, len(c.flows))
	for _, f := range c.flows {
		flows = append(flows, f)
	}
	c.mu.Unlock()
	for _, f := range flows {
		f.cut(notify)
	}
}

// close ends the connection and everything on it.
func (c *conn) close(err error) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.out.fail(err)
	_ = c.nc.Close()
	c.cutFlows(false)
}
