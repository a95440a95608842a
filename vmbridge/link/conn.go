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
	// end takes the flow out of its connection and its Stats, once, and tells
	// whether it was alive.
	end() bool
	// over tells whether the flow has ended.
	over() bool
	// counted gives the flow's Stats.
	counted() *Stats
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

	mu     sync.Mutex
	flows  map[uint32]flow
	closed bool

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

// open registers a flow that this side opens, and tells the peer.
func (c *conn) open(id uint32, f flow, stats *Stats, o wire.Open) error {
	s := c.session
	if s.own.Add(1) > s.maxFlows.Load() {
		s.own.Add(-1)
		return ErrTooManyFlows
	}
	stats.Flows.Add(1)
	if !c.add(id, f) {
		stats.Flows.Add(-1)
		s.own.Add(-1)
		return ErrClosed
	}
	// Looked at only now: whoever retires the Stats and cuts after that finds
	// the flow, or the flow finds this.
	if stats.retired.Load() {
		f.end()
		return ErrRetired
	}
	c.out.post(wire.AppendOpen(nil, id, o))
	if f.over() {
		// It was cut meanwhile, and the peer has perhaps heard of its end before
		// its beginning. To hear twice does no harm.
		c.out.post(wire.AppendCode(nil, wire.TypeReset, id, wire.CodeShutdown))
	}
	return nil
}

// add is false when the connection is over.
func (c *conn) add(id uint32, f flow) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.flows[id] = f
	}
	return !c.closed
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
	if c.session.ours(id) {
		c.session.own.Add(-1)
	} else {
		c.session.foreign.Add(-1)
	}
}

// close ends the connection and everything on it.
func (c *conn) close(err error) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.out.fail(err)
	_ = c.nc.Close()
	c.cutFlows(false, func(flow) bool { return true })
}
