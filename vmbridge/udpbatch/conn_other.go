//go:build !linux

package udpbatch

import (
	"errors"
	"net"
	"net/netip"
)

// platformConn is what a Conn needs where the system has no calls for batches:
// nothing.
type platformConn struct{}

// arena is memory for one datagram.
type arena struct {
	control [controlSize]byte // first, where it is aligned
	payload [MaxPayload]byte
	out     [1]Datagram
}

func newArena() (*arena, error) { return new(arena), nil }

func (a *arena) trim() {}

// sender is memory for the ancillary data of one datagram.
type sender struct{ control [controlSize]byte }

func newSender() *sender { return new(sender) }

func (c *Conn) setup() error {
	addr, ok := c.udp.LocalAddr().(*net.UDPAddr)
	if !ok {
		return errors.New("not bound")
	}
	// Go listens on the unspecified address with an IPv6 socket where it can.
	c.inet6 = addr.AddrPort().Addr().Is6() && !addr.AddrPort().Addr().Is4In6()
	return c.setOptions()
}

func (c *Conn) readBatch(fn func([]Datagram)) error {
	for {
		if err := c.waitReadable(); err != nil {
			return err
		}
		a, err := c.pool.borrow()
		if err != nil {
			return err
		}
		done, err := c.readOne(a, fn)
		if done || err != nil {
			return err
		}
	}
}

// readOne passes one datagram to fn, or reports a soft error and returns false.
func (c *Conn) readOne(a *arena, fn func([]Datagram)) (done bool, err error) {
	defer c.pool.giveBack(a)
	n, oobn, _, peer, err := c.udp.ReadMsgUDPAddrPort(a.payload[:], a.control[:])
	switch {
	case err == nil:
	case isSoft(err):
		c.soft(err)
		return false, nil
	default:
		return false, err
	}
	a.out[0] = Datagram{
		Payload: a.payload[:n:n],
		Peer:    netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()),
	}
	if c.opts.PacketInfo {
		a.out[0].Local = localOf(a.control[:oobn])
	}
	fn(a.out[:])
	return true, nil
}

func (c *Conn) writeBatch(ds []Datagram) (sent int, err error) {
	s := c.pool.senders.Get().(*sender)
	defer c.pool.senders.Put(s)
	for i := range ds {
		d := &ds[i]
		var oob []byte
		if d.Local.IsValid() && !d.Local.IsUnspecified() && !d.Local.IsMulticast() {
			oob = appendSource(s.control[:0], d.Local, c.inet6)
		}
		peer := d.Peer
		if c.opts.Connected {
			peer = netip.AddrPort{}
		}
		_, _, err := c.udp.WriteMsgUDPAddrPort(d.Payload, oob, peer)
		switch {
		case err == nil:
			sent++
		case isSoft(err):
			c.soft(err)
		default:
			return sent, err
		}
	}
	return sent, nil
}
