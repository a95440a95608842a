package acceptance

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// onEveryTransport runs a test on a bed of each kind of link that there can be
// between namespaces.
func onEveryTransport(t *testing.T, f func(t *testing.T, b *bed)) {
	t.Parallel()
	for _, transport := range []string{"unix", "exec", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			f(t, startBed(t, bedConfig{transport: transport}))
		})
	}
}

// meeting is a server in the guest that gives its connections to the test.
type meeting struct {
	b       *bed
	l       *net.TCPListener
	address string // on the host
}

// meet starts such a server, and waits until it is forwarded.
func (b *bed) meet(s socket.Spec) *meeting {
	b.t.Helper()
	l := listen(b.t, b.maker, s)
	b.view.port("tcp "+l.Addr().String(), "open")
	return &meeting{b, l, l.Addr().String()}
}

// pair makes a connection from the host and gives both ends. Nothing on it may
// take longer than the test's patience.
func (m *meeting) pair() (client, server *net.TCPConn) {
	m.b.t.Helper()
	client = m.b.connect(m.address)
	must(m.b.t, m.l.SetDeadline(time.Now().Add(patience)))
	server, err := m.l.AcceptTCP()
	must(m.b.t, err)
	m.b.t.Cleanup(func() { server.Close() })
	for _, c := range []*net.TCPConn{client, server} {
		must(m.b.t, c.SetDeadline(time.Now().Add(patience)))
	}
	return client, server
}

// D1: half-close either way with a late reply: every byte arrives, on every
// transport.
func TestD1HalfClose(t *testing.T) {
	onEveryTransport(t, func(t *testing.T, b *bed) {
		m := b.meet(socket.Spec{Address: "127.0.0.1:7000"})
		halfClose(t, m.pair)
	})
}

// halfClose has either end of a connection close its direction first, with late
// replies of several sizes.
func halfClose(t *testing.T, pair func() (client, server *net.TCPConn)) {
	t.Helper()
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		for i, first := range []string{"client", "server"} {
			var ends [2]*net.TCPConn
			ends[0], ends[1] = pair()
			if err := traffic.HalfClose(ends[i], ends[1-i], size); err != nil {
				t.Errorf("%s first, reply of %d: %v", first, size, err)
			}
			must(t, errors.Join(ends[0].Close(), ends[1].Close()))
		}
	}
}

// D2: bulk in both directions at once through small socket buffers. With smaller
// ones Linux's own loopback takes 40 ms for each segment.
func TestD2SmallBuffers(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	client, server := b.meet(socket.Spec{Address: "127.0.0.1:7000"}).pair()
	const buffer, size = 32 << 10, 16 << 20
	for _, c := range []*net.TCPConn{client, server} {
		must(t, errors.Join(c.SetReadBuffer(buffer), c.SetWriteBuffer(buffer)))
	}
	must(t, wait.Together(2, func(i int) error {
		return traffic.Exchange([]*net.TCPConn{client, server}[i], size)
	}))
}

// D8: 1, 10 and 100 MB both ways with equal checksums.
func TestD8Bulk(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	m := b.meet(socket.Spec{Address: "127.0.0.1:7000"})
	for _, size := range []int64{1e6, 10e6, 100e6} {
		client, server := m.pair()
		must(t, wait.Together(2, func(i int) error {
			return traffic.Exchange([]*net.TCPConn{client, server}[i], size)
		}))
	}
}

// D3: RST travels as RST in both directions, FIN as FIN.
func TestD3Reset(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	resets(t, "", b.meet(socket.Spec{Address: "127.0.0.1:7000"}).pair)
}

// resets ends connections either way, from either end.
func resets(t *testing.T, where string, pair func() (client, server *net.TCPConn)) {
	t.Helper()
	for _, c := range []struct {
		name string
		end  func(c *net.TCPConn) error
		want error
	}{
		{"reset", func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }, syscall.ECONNRESET},
		{"fin", (*net.TCPConn).Close, io.EOF},
	} {
		for i, from := range []string{"client", "server"} {
			var ends [2]*net.TCPConn
			ends[0], ends[1] = pair()
			ender, other := ends[i], ends[1-i]
			// A byte first, so that both ends are known to be there.
			_, err := ender.Write([]byte("x"))
			must(t, err)
			var one [1]byte
			_, err = io.ReadFull(other, one[:])
			must(t, err)
			must(t, c.end(ender))
			if _, err := other.Read(one[:]); !errors.Is(err, c.want) {
				t.Errorf("%s %s from the %s arrives as %v, want %v", where, c.name, from, err, c.want)
			}
		}
	}
}
