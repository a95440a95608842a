package reach

import (
	"context"
	"net"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// stream is a TCP flow.
type stream struct {
	reach  *Reach
	link   *link.Stream
	usage  *usage
	cancel context.CancelFunc // of the dial

	// Under the Reach's lock.
	accepted bool
	verdict  wire.Code // why it was cut, 0 when it was not
}

// Stream takes over a TCP flow that the guest of a link opened, and returns at
// once.
func (r *Reach) Stream(linkName string, s *link.Stream) {
	ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
	f := &stream{reach: r, link: s, cancel: cancel}
	if code := r.admit(f, linkName, message.TCP, s.Destination()); code != 0 {
		cancel()
		s.Refuse(code)
		return
	}
	s.Count(&f.usage.stats)
	go func() {
		defer r.work.Done()
		defer cancel()
		f.serve(ctx)
	}()
}

// serve dials, and answers the guest.
func (f *stream) serve(ctx context.Context) {
	socket, failed := f.dial(ctx)
	if socket == nil {
		code, state, reason := failed.result(f.link.Destination())
		f.refuse(code, state, reason)
		return
	}
	r := f.reach
	r.mu.Lock()
	f.accepted = f.verdict == 0
	accepted := f.accepted
	if accepted {
		f.usage.became(Open, "")
	}
	r.mu.Unlock()
	if !accepted {
		reset(socket)
		f.refuse(0, "", "")
		return
	}
	f.link.Accept(&tcpSocket{socket, f})
}

// dial tries the addresses of the destination, when it is the flow's turn.
func (f *stream) dial(ctx context.Context) (*net.TCPConn, outcome) {
	for _, turn := range []chan struct{}{f.usage.dials, f.usage.guest.dials} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return nil, outcome{err: ctx.Err()}
		}
	}
	var failed outcome
	for _, at := range addresses(f.link.Destination()) {
		socket, err := f.reach.dialTCP(ctx, at)
		if err == nil {
			return socket, outcome{}
		}
		if !failed.add(at, err) {
			break
		}
	}
	return nil, failed
}

// refuse ends a flow that was not accepted: with the verdict on one that was cut.
func (f *stream) refuse(code wire.Code, state State, reason string) {
	r := f.reach
	r.mu.Lock()
	if f.verdict != 0 {
		code = f.verdict
	} else {
		f.usage.became(state, reason)
	}
	r.mu.Unlock()
	r.over(f)
	f.link.Refuse(code)
}

// join implements flow.
func (f *stream) join(u *usage) { f.usage = u }

// cut implements flow.
func (f *stream) cut(code wire.Code) {
	f.reach.mu.Lock()
	f.verdict = code
	accepted := f.accepted
	f.reach.mu.Unlock()
	f.cancel()
	if accepted {
		f.link.Abort()
	}
}

// tcpSocket tells when the stream that carries it has ended.
type tcpSocket struct {
	*net.TCPConn // with the calls on its descriptor
	flow         *stream
}

var _ link.Socket = (*tcpSocket)(nil)

func (s *tcpSocket) Close() error {
	s.flow.reach.over(s.flow)
	return s.TCPConn.Close()
}
