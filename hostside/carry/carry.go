package carry

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

// Carrier carries for one link, over whichever session the link has now.
type Carrier struct {
	associations *association.Table[client]
	pool         *udpbatch.Pool

	mu       sync.Mutex
	session  *link.Session // nil while the link is down
	affinity uint32
}

// New returns a carrier without a session. Close ends its housekeeping.
func New(limits association.Limits) *Carrier {
	return &Carrier{
		associations: association.New(limits, func(c client) { c.socket.clients.Add(-1) }),
		pool:         udpbatch.NewPool(2),
	}
}

// Close ends all associations.
func (c *Carrier) Close() { c.associations.Close() }

// SetUDPIdle changes how long an association lives without a datagram; 0 is the
// default. It holds for those that are open, too.
func (c *Carrier) SetUDPIdle(d time.Duration) { c.associations.SetIdle(d) }

// CutRetired resets the flows that are counted in retired Stats. See
// link.Stats.Retire.
func (c *Carrier) CutRetired() {
	if session := c.current(); session != nil {
		session.CutRetired()
	}
}

// SetSession says which session carries from now on; nil for none.
func (c *Carrier) SetSession(s *link.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
}

func (c *Carrier) current() *link.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// CarryTCP takes over an accepted connection and carries it to an address in
// the guest. Without a session the connection is reset.
func (c *Carrier) CarryTCP(conn *net.TCPConn, guest netip.AddrPort, stats *link.Stats) {
	session := c.current()
	if session == nil {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		return
	}
	source := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	// An error means that the session has just ended; the connection was reset.
	_ = session.OpenStream(conn, source, guest, stats)
}

// CarryUDP serves a socket until it is closed, and closes it. Datagrams of
// peers that keep does not want are dropped; nil keeps all.
func (c *Carrier) CarryUDP(conn *net.UDPConn, guest netip.AddrPort, keep func(netip.Addr) bool, stats *link.Stats) error {
	defer conn.Close()
	batch, err := udpbatch.New(conn, udpbatch.Options{
		PacketInfo: conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().IsUnspecified(),
		Pool:       c.pool,
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.affinity++
	affinity := c.affinity
	c.mu.Unlock()
	socket := &socket{carrier: c, conn: batch, guest: guest, stats: stats, affinity: affinity}
	defer socket.dropClients()

	var out link.DatagramBatch
	serve := func(ds []udpbatch.Datagram) {
		for i := range ds {
			d := &ds[i]
			if keep != nil && !keep(d.Peer.Addr()) {
				continue
			}
			if a := c.association(client{socket, d.Peer, d.Local}); a != nil {
				out.Add(a.Flow, d.Payload)
			} else {
				stats.DroppedDatagrams.Add(1) // no session
			}
		}
		out.Send()
	}
	for {
		if err := batch.ReadBatch(serve); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
	}
}
