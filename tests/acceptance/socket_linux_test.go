package acceptance

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// place is where sockets are made: a namespace, by this process or another.
type place interface {
	Open(socket.Spec) (*os.File, error)
}

// here makes this process's sockets in a namespace.
type here struct{ *netns.Namespace }

func (h here) Open(s socket.Spec) (f *os.File, err error) {
	err = h.Do(func() (err error) {
		f, err = s.Open()
		return err
	})
	return f, err
}

// startMaker starts a program in the guest that makes sockets: the agent tells
// whose a socket is by who made it.
func (b *bed) startMaker() *socket.Maker {
	b.t.Helper()
	m, err := socket.NewMaker(exec.Command(built.server(b.t), "make"), func(cmd *exec.Cmd) error {
		b.spawn(b.guest, "maker", cmd)
		return nil
	})
	must(b.t, err)
	b.t.Cleanup(func() { m.Close() })
	return m
}

// listen makes a TCP server's socket, until the test ends.
func listen(t *testing.T, where place, s socket.Spec) (l *net.TCPListener) {
	t.Helper()
	s.Network = "tcp"
	use(t, where, s, func(f *os.File) (io.Closer, error) {
		made, err := net.FileListener(f)
		l, _ = made.(*net.TCPListener)
		return made, err
	})
	return l
}

// bindUDP makes a UDP server's socket, until the test ends.
func bindUDP(t *testing.T, where place, s socket.Spec) (c *net.UDPConn) {
	t.Helper()
	s.Network = "udp"
	use(t, where, s, func(f *os.File) (io.Closer, error) {
		made, err := net.FilePacketConn(f)
		c, _ = made.(*net.UDPConn)
		return made, err
	})
	return c
}

// use has a socket made, and closes what wrap makes of it when the test ends.
func use(t *testing.T, where place, s socket.Spec, wrap func(*os.File) (io.Closer, error)) {
	t.Helper()
	f, err := where.Open(s)
	must(t, err)
	defer f.Close() // what wrap gives has a duplicate
	c, err := wrap(f)
	must(t, err)
	t.Cleanup(func() { c.Close() })
}

// echo serves in the guest until the test ends or the server is closed. The
// address that it has is returned as the view names it.
func (b *bed) echo(s socket.Spec) (server *socket.Server, name string) {
	b.t.Helper()
	server, err := b.maker.Echo(s)
	must(b.t, err)
	// The view knows nothing of IPv4's place in IPv6.
	a := netip.MustParseAddrPort(server.Address)
	return server, s.Network + " " + joinPort(a.Addr().Unmap(), a.Port())
}

func joinPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
