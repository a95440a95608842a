package link

import (
	"fmt"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// parser turns the bytes of a connection into calls. A data frame's payload is
// delivered as it arrives; every other frame is handled when it is whole.
type parser struct {
	conn *conn
	// body is what is left of a frame that is taken piecewise.
	body struct {
		header  wire.Header
		left    int
		stream  *Stream // nil: skip
		control []byte
	}
	// batch is a run of datagrams of one flow.
	batch struct {
		flow     *DatagramFlow
		payloads [][]byte
	}
}

// feed consumes what it can of p and says how much. p is not kept.
func (r *parser) feed(p []byte) (int, error) {
	defer r.flush()
	used := 0
	for {
		rest := p[used:]
		if r.body.left > 0 {
			if len(rest) == 0 {
				return used, nil
			}
			n := min(r.body.left, len(rest))
			used += n
			if err := r.part(rest[:n]); err != nil {
				return used, err
			}
			continue
		}
		if len(rest) < wire.HeaderSize {
			return used, nil
		}
		h, err := wire.ParseHeader(rest)
		if err != nil {
			return used, err
		}
		whole, err := r.begin(h)
		if err != nil {
			return used, err
		}
		if !whole {
			used += wire.HeaderSize
			continue
		}
		if len(rest) < wire.HeaderSize+h.Length {
			return used, nil
		}
		if err := r.frame(h, rest[wire.HeaderSize:wire.HeaderSize+h.Length]); err != nil {
			return used, err
		}
		used += wire.HeaderSize + h.Length
	}
}

// splicable tells whether what is left of the current frame is worth a splice.
func (r *parser) splicable() bool {
	return r.conn.splices && r.body.left >= spliceBytes && r.body.stream != nil && r.body.stream.splicable()
}

// splice moves the rest of the current frame to its stream.
func (r *parser) splice() error {
	c := r.conn
	for r.body.left > 0 {
		p := c.session.pipes.get()
		if p == nil {
			return nil // the next read copies
		}
		var n int
		var failed error
		err := c.raw.Read(func(fd uintptr) (ready bool) {
			var again bool
			n, again, failed = p.fill(fd, r.body.left)
			return !again
		})
		if err == nil {
			err = failed
		}
		if err == nil && n == 0 {
			err = errHungUp
		}
		if err != nil {
			c.session.pipes.put(p)
			return err
		}
		c.heard.Store(true)
		r.body.left -= n
		r.body.stream.deliverPipe(p)
	}
	return nil
}

// begin tells whether a frame is handled whole. If not, part takes its payload.
func (r *parser) begin(h wire.Header) (whole bool, err error) {
	switch {
	case h.Type == wire.TypeData:
		r.flush()
		stream, _ := r.conn.lookup(h.Flow).(*Stream)
		if stream != nil && !stream.expect(h.Length) {
			return false, fmt.Errorf("%w: flow %d sends more than it may", wire.ErrMalformed, h.Flow)
		}
		r.body.stream = stream
	case h.Type == wire.TypeControl:
		r.flush()
		r.body.stream = nil
		r.body.control = r.body.control[:0]
		if h.Length == 0 {
			return false, fmt.Errorf("%w: empty control message", wire.ErrMalformed)
		}
	case !h.Type.Known():
		r.body.stream = nil
	default:
		return true, nil
	}
	r.body.header, r.body.left = h, h.Length
	return false, nil
}

func (r *parser) part(p []byte) error {
	r.body.left -= len(p)
	switch {
	case r.body.stream != nil:
		r.body.stream.deliver(p)
	case r.body.header.Type == wire.TypeControl:
		r.body.control = append(r.body.control, p...)
		if r.body.left > 0 {
			return nil
		}
		m, err := message.Decode(r.body.control)
		if cap(r.body.control) > readBytes {
			r.body.control = nil
		}
		if err != nil {
			return err
		}
		r.conn.session.config.Handler.Message(r.conn.session, m)
	}
	return nil
}

// frame handles a whole frame.
func (r *parser) frame(h wire.Header, p []byte) error {
	c := r.conn
	if h.Type == wire.TypeDatagram {
		f, _ := c.lookup(h.Flow).(*DatagramFlow)
		if f != r.batch.flow {
			r.flush()
			r.batch.flow = f
		}
		if f != nil {
			r.batch.payloads = append(r.batch.payloads, p)
		}
		return nil
	}
	r.flush()
	switch h.Type {
	case wire.TypePing:
		c.out.post(wire.AppendFrame(nil, wire.TypePong, 0, p))
	case wire.TypePong:
		// That it came is all it says.
	case wire.TypeOpened:
		if s, ok := c.lookup(h.Flow).(*Stream); ok {
			s.tellAnswer(0)
		}
	case wire.TypeGoodbye:
		g, err := wire.ParseGoodbye(p)
		if err != nil {
			return err
		}
		return &GoodbyeError{Code: g.Code, Reason: message.Clean(g.Reason, maxReason)}
	case wire.TypeOpen:
		return r.open(h.Flow, p)
	case wire.TypeCredit:
		n, err := wire.ParseCredit(p)
		if err != nil {
			return err
		}
		if s, ok := c.lookup(h.Flow).(*Stream); ok {
			s.addCredit(n)
		}
	case wire.TypeFin:
		if s, ok := c.lookup(h.Flow).(*Stream); ok {
			s.fin()
		}
	case wire.TypeReset, wire.TypeRefused:
		code, err := wire.ParseCode(p)
		if err != nil {
			return err
		}
		switch f := c.lookup(h.Flow).(type) {
		case *Stream:
			f.peerReset(code)
		case *DatagramFlow:
			f.peerEnded(code)
		}
	default:
		return fmt.Errorf("%w: %s frame on an established link", wire.ErrMalformed, h.Type)
	}
	return nil
}

func (r *parser) open(id uint32, p []byte) error {
	o, err := wire.ParseOpen(p)
	if err != nil {
		return err
	}
	c, s := r.conn, r.conn.session
	if id == 0 || s.ours(id) {
		return fmt.Errorf("%w: flow %d is not the peer's to open", wire.ErrMalformed, id)
	}
	var f flow
	var stream *Stream
	var datagrams *DatagramFlow
	if o.Network == wire.TCP {
		stream = newStream(c, id, o.Source, o.Destination, &s.stats)
		stream.inbound, stream.outbound = &s.stats.BytesIn, &s.stats.BytesOut
		f = stream
	} else {
		datagrams = &DatagramFlow{conn: c, id: id, source: o.Source, destination: o.Destination, stats: &s.stats,
			inbound: &s.stats.BytesIn, outbound: &s.stats.BytesOut}
		f = datagrams
	}
	c.mu.Lock()
	_, taken := c.flows[id]
	full := s.foreign.Add(1) > s.maxFlows.Load()
	closed := c.closed
	if !taken && !full && !closed {
		c.flows[id] = f
	} else {
		s.foreign.Add(-1)
	}
	c.mu.Unlock()
	if closed {
		return ErrClosed // nobody would end the flow
	}
	if taken {
		return fmt.Errorf("%w: flow %d is open already", wire.ErrMalformed, id)
	}
	if full {
		c.out.post(wire.AppendCode(nil, wire.TypeRefused, id, wire.CodeResources))
		return nil
	}
	s.stats.Flows.Add(1)
	if stream != nil {
		s.config.Handler.Stream(stream)
	} else {
		s.config.Handler.Datagrams(datagrams)
	}
	return nil
}

// flush delivers the run of datagrams.
func (r *parser) flush() {
	if f := r.batch.flow; f != nil && len(r.batch.payloads) > 0 {
		f.deliver(r.batch.payloads)
	}
	clear(r.batch.payloads)
	r.batch.flow, r.batch.payloads = nil, r.batch.payloads[:0]
}
