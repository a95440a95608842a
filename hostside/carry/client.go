package carry

import (
	"net/netip"
	"sync/atomic"

	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// socket is a forward's UDP socket.
type socket struct {
	carrier  *Carrier
	conn     *udpbatch.Conn
	guest    netip.AddrPort
	stats    *link.Stats
	affinity uint32
	clients  atomic.Int64 // that have an association
}

// client names an association: a client of a socket, and the address it sent to.
type client struct {
	socket *socket
	peer   netip.AddrPort
	local  netip.Addr
}

// association finds or opens the association of a datagram. nil means that there
// is no session to open it on.
func (c *Carrier) association(k client) *association.Association[client] {
	if a := c.associations.Get(k); a != nil {
		return a
	}
	session := c.current()
	if session == nil {
		return nil
	}
	k.socket.clients.Add(1)
	a, err := c.associations.Open(k, func(a *association.Association[client]) (*link.DatagramFlow, error) {
		r := replier{association: a}
		return session.OpenDatagrams(k.peer, k.socket.guest, k.socket.affinity, k.socket.stats, r.reply,
			func(wire.Code) { a.Ended() })
	})
	if err != nil {
		k.socket.clients.Add(-1)
		return nil
	}
	return a
}

// dropClients ends the associations of a socket that is closed. Most sockets
// have none, and need no look at the table.
func (s *socket) dropClients() {
	if s.clients.Load() > 0 {
		s.carrier.associations.CloseKeys(func(k client) bool { return k.socket == s })
	}
}

// replier sends what the guest's service answers to the client. It runs on the
// reader of a link connection; a full socket buffer drops.
type replier struct {
	association *association.Association[client]
	datagrams   []udpbatch.Datagram // memory of the connection's reader
}

func (r *replier) reply(payloads [][]byte) {
	r.association.Used()
	to := r.association.Key
	ds := r.datagrams[:0]
	for _, p := range payloads {
		ds = append(ds, udpbatch.Datagram{Payload: p, Peer: to.peer, Local: to.local})
	}
	r.datagrams = ds
	sent, _ := to.socket.conn.WriteBatch(ds)
	clear(ds)
	if sent < len(ds) {
		to.socket.stats.DroppedDatagrams.Add(uint64(len(ds) - sent))
	}
}
