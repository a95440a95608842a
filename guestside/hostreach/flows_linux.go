package hostreach

import (
	"errors"
	"net/netip"
	"time"

	"github.com/vmbridge/vmbridge/guestside/netstack"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// answerTimeout is how long a host may take to answer. Linux gives up a
// connect() after 127 s; the host, long before.
const answerTimeout = 2 * time.Minute

// loopback gives the address of the host that is meant by the host address.
func loopback(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}

// connect answers a client that connects to the host address, in a goroutine of
// its own, with what the host's dial meets.
func (s *service) connect(r *netstack.Request) {
	select {
	case <-s.ready:
	case <-s.ctx.Done():
		r.Refuse()
		return
	}
	session := s.session()
	if session == nil {
		r.Refuse()
		return
	}
	answer := make(chan wire.Code, 1)
	// The client believes that it is on the loopback.
	stream, err := session.AskStream(loopback(r.Source()), loopback(r.Destination()), &s.stats,
		func(c wire.Code) { answer <- c })
	if err != nil {
		r.Refuse()
		return
	}
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	select {
	case code := <-answer:
		s.answered(r, stream, code)
	case <-timeout.C:
		stream.Abort()
		r.Ignore()
	case <-s.ctx.Done():
		stream.Abort()
		r.Refuse()
	}
}

func (s *service) answered(r *netstack.Request, stream *link.Stream, code wire.Code) {
	switch code {
	case 0:
		conn, err := r.Accept()
		if err != nil {
			s.log.WithError(err).Debug("a client has gone before the host answered")
			stream.Abort()
			return
		}
		stream.Attach(conn)
	case wire.CodeTimedOut:
		r.Ignore() // the client's own patience decides
	default:
		r.Refuse()
	}
}

// client names an association.
type client struct{ from, to netip.AddrPort }

// datagram carries a datagram to the host.
func (s *service) datagram(from, to netip.AddrPort, payload []byte) {
	select {
	case <-s.ready:
	default:
		return
	}
	c := client{from, to}
	a := s.associations.Get(c)
	if a == nil {
		if !s.newClients.Allow() {
			return
		}
		session := s.session()
		if session == nil {
			_ = s.stack.PortUnreachable(from, to)
			return
		}
		var err error
		if a, err = s.associations.Open(c, func(a *association.Association[client]) (*link.DatagramFlow, error) {
			return s.associate(session, a)
		}); errors.Is(err, link.ErrBusy) {
			return // lost, as datagrams are
		} else if err != nil {
			_ = s.stack.PortUnreachable(from, to)
			return
		}
	}
	s.datagrams.Lock()
	defer s.datagrams.Unlock()
	s.batch.Add(a.Flow, payload)
	s.batch.Send()
}

// associate opens the flow of a client.
func (s *service) associate(session *link.Session, a *association.Association[client]) (*link.DatagramFlow, error) {
	c := a.Key
	// One connection carries all of a client, whatever ports it talks to.
	affinity := uint32(c.from.Port())
	return session.OpenDatagrams(loopback(c.from), loopback(c.to), affinity, &s.stats,
		func(payloads [][]byte) {
			a.Used()
			// What the device does not take is lost, as datagrams are.
			_ = s.stack.SendUDP(c.to, c.from, payloads)
		},
		func(code wire.Code) {
			a.Ended()
			switch code {
			case wire.CodeIdle, wire.CodeShutdown:
			default:
				_ = s.stack.PortUnreachable(c.from, c.to)
			}
		})
}
