package agent

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// dialTimeout is how long a TCP connection in the guest may take. Linux itself
// gives up after two minutes; a client of a forward has gone by then.
const dialTimeout = 30 * time.Second

// receiveBytes is the receive buffer of a UDP flow's socket: a service may answer
// in bursts. The kernel fills it only as far as it must.
const receiveBytes = 1 << 20

// deliverer connects flows to the guest's sockets.
type deliverer struct {
	ctx  context.Context
	log  logrus.FieldLogger
	pool *udpbatch.Pool
	work sync.WaitGroup
}

func newDeliverer(ctx context.Context, log logrus.FieldLogger) *deliverer {
	return &deliverer{ctx: ctx, log: log, pool: udpbatch.NewPool(2)}
}

// stream connects a TCP flow.
func (d *deliverer) stream(s *link.Stream) {
	d.work.Go(func() {
		// Keep-alive is the business of the two real ends. Not DialTCP, which binds
		// the socket first: ports in TIME_WAIT then cannot be used again, and a
		// busy guest runs out of them.
		dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
		socket, err := dialer.DialContext(d.ctx, "tcp", s.Destination().String())
		if err != nil {
			d.log.WithError(err).Debug("cannot connect a flow")
			s.Refuse(link.CodeOf(err))
			return
		}
		s.Accept(socket.(*net.TCPConn))
	})
}

// datagrams connects a UDP flow.
func (d *deliverer) datagrams(f *link.DatagramFlow) {
	// Connecting a UDP socket only looks up a route, so it does not block.
	socket, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.Destination()))
	if err != nil {
		d.log.WithError(err).Debug("cannot connect a flow")
		f.Refuse(link.CodeOf(err))
		return
	}
	_ = socket.SetReadBuffer(receiveBytes) // best effort
	batch, err := udpbatch.New(socket, udpbatch.Options{Connected: true, Pool: d.pool})
	if err != nil {
		_ = socket.Close()
		f.Refuse(wire.CodeResources)
		return
	}
	var out []udpbatch.Datagram // memory of the connection's reader
	f.Accept(func(payloads [][]byte) {
		out = out[:0]
		for _, p := range payloads {
			out = append(out, udpbatch.Datagram{Payload: p})
		}
		// A full socket buffer drops, as it does for a local sender.
		_, _ = batch.WriteBatch(out)
		clear(out)
	}, func(wire.Code) { _ = socket.Close() })
	d.work.Go(func() {
		var replies link.DatagramBatch
		for batch.ReadBatch(func(ds []udpbatch.Datagram) {
			for i := range ds {
				replies.Add(f, ds[i].Payload)
			}
			replies.Send()
		}) == nil {
		}
		f.Close(wire.CodeShutdown)
	})
}
