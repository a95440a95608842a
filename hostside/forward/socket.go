package forward

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// slot says which socket to open.
type slot struct {
	protocol message.Protocol
	at       netip.AddrPort
	// ended is called, without the engine's lock, when the carrier of a UDP
	// socket returns although the socket was not closed.
	ended func(error)
}

// route is where the clients of a socket go.
type route struct {
	carrier Carrier // nil: nobody is there, newcomers are reset
	guest   netip.AddrPort
	all     bool // the guest listens on all addresses
	stats   *link.Stats
}

// hostSocket is an open socket that is being served.
type hostSocket interface {
	// set gives newcomers another route; nil resets them. It is false when the
	// socket has to be opened anew for that.
	set(r *route) bool
	// close has released the port when it returns.
	close()
}

func (e *Engine) openSocket(s slot, r *route) (hostSocket, error) {
	if s.protocol == message.UDP {
		return e.openUDP(s, r)
	}
	return e.openTCP(s, r)
}

// tcpSocket accepts connections for its route.
type tcpSocket struct {
	listener *net.TCPListener
	peers    bind.Peers
	route    atomic.Pointer[route]
}

func (e *Engine) openTCP(s slot, r *route) (hostSocket, error) {
	l, peers, err := bind.TCP(s.at)
	if err != nil {
		return nil, err
	}
	t := &tcpSocket{listener: l, peers: peers}
	t.route.Store(r)
	e.wg.Go(func() { t.serve(e) })
	return t, nil
}

func (t *tcpSocket) set(r *route) bool {
	t.route.Store(r)
	return true
}

// close waits, inside package net, until the accepting goroutine is out of the
// descriptor.
func (t *tcpSocket) close() { t.listener.Close() }

// acceptRetry is the pause after a failed accept, for want of descriptors or
// memory. The connection stays in the kernel's queue.
const acceptRetry = 50 * time.Millisecond

func (t *tcpSocket) serve(e *Engine) {
	for {
		conn, err := t.listener.AcceptTCP()
		if err == nil {
			t.accepted(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		e.acceptFailed(err)
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(acceptRetry):
		}
	}
}

// keepAlive finds clients that went away without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

func (t *tcpSocket) accepted(conn *net.TCPConn) {
	peer := addrOf(conn.RemoteAddr())
	r := t.route.Load()
	if r == nil || r.carrier == nil || t.peers != nil && !t.peers(peer) {
		_ = conn.SetLinger(0) // a reset, as from a closed port
		conn.Close()
		return
	}
	if !peer.IsLoopback() {
		_ = conn.SetKeepAliveConfig(keepAlive)
	}
	guest := r.guest
	if r.all && guest.Addr() == loopback4 {
		// A wildcard listener answers on all of 127/8; let it see the address
		// that its client used, as it would without us.
		if local := addrOf(conn.LocalAddr()); local.IsLoopback() && local.Is4() {
			guest = netip.AddrPortFrom(local, guest.Port())
		}
	}
	r.carrier.CarryTCP(conn, guest, r.stats)
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// acceptFailed logs once in a while: every listener fails when descriptors run
// out.
func (e *Engine) acceptFailed(err error) {
	const quiet = int64(time.Minute)
	now, last := time.Now().UnixNano(), e.lastErr.Load()
	if now-last >= quiet && e.lastErr.CompareAndSwap(last, now) {
		e.log.WithError(err).Warn("connections wait: accept fails")
	}
}

// udpSocket is served by the carrier of its route; without one it only keeps the
// port.
type udpSocket struct {
	conn   *net.UDPConn
	closed atomic.Bool
}

func (e *Engine) openUDP(s slot, r *route) (hostSocket, error) {
	conn, peers, err := bind.UDP(s.at)
	if err != nil {
		return nil, err
	}
	u := &udpSocket{conn: conn}
	if r.carrier != nil {
		e.wg.Go(func() {
			err := r.carrier.CarryUDP(conn, r.guest, peers, r.stats)
			if !u.closed.Load() {
				s.ended(err)
			}
		})
	}
	return u, nil
}

func (u *udpSocket) set(*route) bool { return false }

func (u *udpSocket) close() {
	u.closed.Store(true)
	u.conn.Close()
}
