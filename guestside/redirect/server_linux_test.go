package redirect

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// server answers with its name and the address of its client.
type server struct {
	name   string
	socket io.Closer
	done   sync.WaitGroup
}

// serve starts a server on exactly this address. The network is tcp, mptcp or
// udp; a 6 behind it sets IPV6_V6ONLY.
func (s *space) serve(t testing.TB, name, network, address string) *server {
	t.Helper()
	v := &server{name: name}
	var f *os.File
	err := s.do(func() (err error) { f, err = bound(network, address); return err })
	if err != nil {
		t.Fatalf("serve %s %s: %v", network, address, err)
	}
	defer f.Close() // the server has a duplicate
	if network[:3] == "udp" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		v.socket = c
		v.done.Go(func() { v.serveUDP(c.(*net.UDPConn)) })
	} else {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		v.socket = l
		v.done.Go(func() { v.serveTCP(l) })
	}
	t.Cleanup(v.close)
	return v
}

// bound makes a socket that is bound, and listens if it is one of TCP.
func bound(network, address string) (_ *os.File, err error) {
	typ, protocol := unix.SOCK_STREAM, 0
	switch network[:3] {
	case "udp":
		typ = unix.SOCK_DGRAM
	case "mpt":
		protocol = unix.IPPROTO_MPTCP
	}
	sa, domain := sockaddr(address)
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), address)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if typ == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, err
		}
	}
	if domain == unix.AF_INET6 {
		only := 0
		if network[len(network)-1] == '6' {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return nil, err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 64)
	}
	return f, err
}

// close returns when the port is free.
func (v *server) close() {
	v.socket.Close()
	v.done.Wait()
}

func (v *server) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client has gone already
		}
		fmt.Fprintf(c, "%s %s", v.name, c.RemoteAddr())
		// The server ends the connection first, so that it has the TIME_WAIT, but
		// not before it read everything, or it would break the connection off.
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
}

func (v *server) serveUDP(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s", v.name, from), from)
		}
	}
}

// serveHost serves a port of both families on the host.
func (b *bed) serveHost(protocol string, port int) (servers []*server) {
	b.t.Helper()
	for _, a := range []netip.Addr{both.Host4, both.Host6} {
		servers = append(servers, b.host.serve(b.t, "host", protocol, netip.AddrPortFrom(a, uint16(port)).String()))
	}
	return servers
}
