package bind

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"syscall"
)

// Peers says whether a peer may use a socket that had to be bound wider than it
// was asked for. Nil admits everybody.
type Peers func(peer netip.Addr) bool

// udpBufferBytes is asked for in each direction: the kernel's default of about
// 200 KiB holds fewer than four full datagrams' worth of accounting per burst
// and drops the rest. It is a limit, not an allocation.
const udpBufferBytes = 4 << 20

// TCP listens on exactly this address. Connections are accepted without
// keep-alive, which is pointless on the loopback; set it on the others.
// Multipath TCP is off: its sockets cannot splice.
func TCP(at netip.AddrPort) (*net.TCPListener, Peers, error) {
	var l *net.TCPListener
	peers, err := native().open("tcp", at, func(at netip.AddrPort) error {
		lc := net.ListenConfig{KeepAlive: -1, Control: control}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), network("tcp", at), at.String())
		if err != nil {
			return err
		}
		l = ln.(*net.TCPListener)
		return nil
	})
	return l, peers, err
}

// UDP binds exactly this address, with large buffers.
func UDP(at netip.AddrPort) (*net.UDPConn, Peers, error) {
	var c *net.UDPConn
	peers, err := native().open("udp", at, func(at netip.AddrPort) error {
		lc := net.ListenConfig{Control: control}
		pc, err := lc.ListenPacket(context.Background(), network("udp", at), at.String())
		if err != nil {
			return err
		}
		c = pc.(*net.UDPConn)
		return nil
	})
	return c, peers, err
}

// Lingers says that on this operating system a TCP port cannot be bound again
// before the connections accepted on it have ended.
func Lingers(goos string) bool { return rulesFor(goos).lingers }

// Prompts says that on this operating system the first bind of a wildcard address
// may have the firewall ask the user.
func Prompts(goos string) bool { return rulesFor(goos).prompts }

// binder joins the rules of a system with the means to follow them.
type binder struct {
	rules rules
	// probe binds for an instant, where the rules ask for it.
	probe func(protocol string, at netip.AddrPort) error
}

func native() binder { return binder{rules: rulesFor(runtime.GOOS), probe: probe} }

// open calls try with the address to bind, after the probes that make it
// exclusive, and tells which peers to admit.
func (b binder) open(protocol string, at netip.AddrPort, try func(netip.AddrPort) error) (Peers, error) {
	err := b.exclusive(protocol, at, try)
	if err == nil {
		return nil, nil
	}
	if wide, ok := b.rules.instead(at, err); ok {
		if err := b.exclusive(protocol, wide, try); err != nil {
			return nil, err
		}
		return netip.Addr.IsLoopback, nil
	}
	return nil, err
}

func (b binder) exclusive(protocol string, at netip.AddrPort, try func(netip.AddrPort) error) error {
	if other, ok := b.rules.rival(protocol, at); ok {
		// Only "in use" counts: a probe that fails otherwise has found nobody.
		if err := b.probe(protocol, other); err != nil && kindOf(err) == ErrInUse {
			return newError(protocol, other, err)
		}
	}
	if err := try(at); err != nil {
		return newError(protocol, at, err)
	}
	return nil
}

func network(protocol string, at netip.AddrPort) string {
	if at.Addr().Is4() {
		return protocol + "4"
	}
	return protocol + "6" // with the digit, package net sets IPV6_V6ONLY
}

// control runs between socket and bind.
func control(network, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = setOptions(network, fd) }); cerr != nil {
		return cerr
	}
	return err
}
