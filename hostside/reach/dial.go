package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// dialTimeout is how long a TCP connection may take, waiting for its turn
// included. Linux itself gives up after two minutes; a client has gone by then.
const dialTimeout = 30 * time.Second

// Errors that stand for a refusal.
var (
	errOwn     = fmt.Errorf("only a forward of vmbridge itself is there: %w", syscall.ECONNREFUSED)
	errRefused = fmt.Errorf("a datagram was refused: %w", syscall.ECONNREFUSED)
	errGone    = fmt.Errorf("the service has gone: %w", syscall.ECONNREFUSED)
	errSelf    = fmt.Errorf("connected to itself: %w", syscall.ECONNREFUSED)
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

func isLoopback(a netip.Addr) bool { return a == loopback4 || a == loopback6 }

// addresses are what stands for a destination, in the order to try them.
func addresses(to netip.AddrPort) [2]netip.AddrPort {
	other := loopback6
	if to.Addr() == loopback6 {
		other = loopback4
	}
	return [2]netip.AddrPort{to, netip.AddrPortFrom(other, to.Port())}
}

// absent tells whether a dial has found nobody at an address, so that the other
// family is to be asked. A machine without IPv6 has nobody there either.
func absent(at netip.AddrPort, code wire.Code) bool {
	return code == wire.CodeRefused ||
		at.Addr().Is6() && (code == wire.CodeAddressNotUsable || code == wire.CodeNetUnreachable)
}

// outcome collects why no address could be dialled.
type outcome struct {
	err    error
	nobody bool // err means that nobody is there
}

// add notes a failed attempt and tells whether the other family is to be tried.
func (o *outcome) add(at netip.AddrPort, err error) bool {
	first := o.err == nil
	o.nobody = absent(at, link.CodeOf(err))
	if first || !o.nobody || errors.Is(err, errOwn) {
		o.err = err
	}
	return o.nobody
}

// result gives the answer to the guest, and the state and reason to be shown.
func (o *outcome) result(to netip.AddrPort) (wire.Code, State, string) {
	code := link.CodeOf(o.err)
	switch {
	case errors.Is(o.err, errOwn):
		return wire.CodeRefused, Refused, "only a forward of vmbridge itself listens there"
	case errors.Is(o.err, errGone):
		return wire.CodeRefused, Refused, "the service has gone"
	case o.nobody:
		pair := addresses(to)
		return wire.CodeRefused, Refused, fmt.Sprintf("nothing listens on %s or %s", pair[0], pair[1])
	case code == wire.CodeTimedOut:
		return code, Failed, fmt.Sprintf("no answer within %s", dialTimeout)
	}
	return code, Failed, o.err.Error()
}

// dialTCP connects to a loopback address, unless the answer would be our own.
func (r *Reach) dialTCP(ctx context.Context, at netip.AddrPort) (*net.TCPConn, error) {
	if r.own(message.TCP, at) {
		return nil, errOwn
	}
	// Keep-alive is pointless on a loopback. Not DialTCP, which binds the socket
	// first: ports in TIME_WAIT then cannot be used again, and a busy machine runs
	// out of them.
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	socket := conn.(*net.TCPConn)
	switch {
	case meetsItself(socket):
		err = errSelf
	case r.own(message.TCP, at): // it has opened since
		err = errOwn
	}
	if err != nil {
		reset(socket)
		return nil, err
	}
	return socket, nil
}

// Sizes of the buffers of a UDP socket, in bytes. A service may answer in bursts,
// and macOS refuses datagrams larger than the send buffer, 9 KiB unless told
// otherwise. The kernel fills them only as far as it must.
const (
	receiveBytes = 1 << 20
	sendBytes    = 256 << 10
)

// dialUDP connects a UDP socket to a loopback address.
func (r *Reach) dialUDP(at netip.AddrPort) (*net.UDPConn, error) {
	if r.own(message.UDP, at) {
		return nil, errOwn
	}
	// Connecting a UDP socket only looks up a route, so it does not block.
	socket, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	if meetsItself(socket) {
		_ = socket.Close()
		return nil, errSelf
	}
	_ = socket.SetReadBuffer(receiveBytes) // what the system grants is enough to work
	_ = socket.SetWriteBuffer(sendBytes)
	return socket, nil
}

// meetsItself tells whether the kernel has chosen for the socket the very port
// that it connects to, which it does only when nobody else has that. Package net
// dials again where TCP has met itself, but not for ever.
func meetsItself(c net.Conn) bool { return c.LocalAddr().String() == c.RemoteAddr().String() }

// reset closes a connection that shall not look like one that was served.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
