package link_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

type linkCode = wire.Code

func unixCarrier(conns int) carrier {
	return carrier{name: "unix", conns: conns, listen: func(t *testing.T) (net.Listener, func(context.Context) (net.Conn, error)) {
		path := filepath.Join(t.TempDir(), "link.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return l, func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}}
}

func TestNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		b, s := newBridge(t, unixCarrier(2))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		addr := b.forward(t, s, l.Addr().(*net.TCPAddr).AddrPort())
		c1, err = net.Dial("tcp", addr)
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = l.Accept()
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close(); _ = l.Close() }, err
	})
}

func BenchmarkThroughput(b *testing.B) {
	_ = netip.AddrPort{}
	t := &testing.T{}
	_ = t
	_ = io.EOF
}
