package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

var testKey = []byte("0123456789abcdef0123456789abcdef")

func quietLog() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// end is the handler of one end of a link. It connects the flows that it is
// asked for, unless a test has other plans.
type end struct {
	ctx    context.Context
	cancel context.CancelFunc
	hide   bool // sockets have no descriptor
	work   sync.WaitGroup

	up    chan *link.Session
	down  chan error
	heard chan message.Message
	// stream and datagrams replace what the end does with a flow.
	stream    func(*link.Stream)
	datagrams func(*link.DatagramFlow)
}

func newEnd() *end {
	e := &end{up: make(chan *link.Session, 1024), down: make(chan error, 1024), heard: make(chan message.Message, 4096)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// close ends the dials that are under way and waits for the end's goroutines.
func (e *end) close() {
	e.cancel()
	e.work.Wait()
}

func (e *end) Up(s *link.Session)                         { e.up <- s }
func (e *end) Down(_ *link.Session, err error)            { e.down <- err }
func (e *end) Message(_ *link.Session, m message.Message) { e.heard <- m }

func (e *end) Stream(s *link.Stream) {
	if e.stream != nil {
		e.stream(s)
		return
	}
	e.connect(s)
}

// connect dials what a stream asks for.
func (e *end) connect(s *link.Stream) {
	e.work.Go(func() {
		conn, err := (&net.Dialer{}).DialContext(e.ctx, "tcp", s.Destination().String())
		if err != nil {
			s.Refuse(link.CodeOf(err))
			return
		}
		s.Accept(e.socket(conn.(*net.TCPConn)))
	})
}

func (e *end) Datagrams(f *link.DatagramFlow) {
	if e.datagrams != nil {
		e.datagrams(f)
		return
	}
	conn, err := net.Dial("udp", f.Destination().String())
	if err != nil {
		f.Refuse(link.CodeOf(err))
		return
	}
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			_, _ = conn.Write(p)
		}
	}, func(wire.Code) { _ = conn.Close() })
	e.work.Go(func() {
		buf := make([]byte, 1<<16)
		var batch link.DatagramBatch
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				batch.Add(f, buf[:n])
				batch.Send()
			}
		}
	})
}

func (e *end) socket(c *net.TCPConn) link.Socket {
	if e.hide {
		return hiddenSocket{c, c}
	}
	return c
}

// hiddenSocket is a socket without the calls on its descriptor: what Windows
// and user-space network stacks have.
type hiddenSocket struct {
	net.Conn
	tcp *net.TCPConn
}

func (s hiddenSocket) CloseWrite() error           { return s.tcp.CloseWrite() }
func (s hiddenSocket) SetLinger(seconds int) error { return s.tcp.SetLinger(seconds) }

// bridge is a link, with one end in this process and the other here or in
// another one.
type bridge struct {
	host    *end
	guest   *end          // nil: in another process
	session *link.Session // the host's
	remote  *link.Session // the guest's; nil: in another process
	stats   link.Stats    // of the forwards
	states  chan link.State
	stop    func() // ends both; the cleanup does it too
}

// bridgeOptions change what newBridge makes.
type bridgeOptions struct {
	host, guest func(*link.Config)
	ends        func(host, guest *end)
}

// newBridge starts both ends and waits until the link is up.
func newBridge(t testing.TB, c carrier, opts ...bridgeOptions) *bridge {
	t.Helper()
	b := &bridge{host: newEnd(), guest: newEnd(), states: make(chan link.State, 1024)}
	b.host.hide, b.guest.hide = c.hideSockets, c.hideSockets
	way := c.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	hostConfig := link.Config{Key: way.key, Handler: b.host, Log: quietLog()}
	guestConfig := link.Config{Key: way.key, Name: "test guest", Handler: b.guest, Log: quietLog()}
	for _, o := range opts {
		if o.host != nil {
			o.host(&hostConfig)
		}
		if o.guest != nil {
			o.guest(&guestConfig)
		}
		if o.ends != nil {
			o.ends(b.host, b.guest)
		}
	}
	if way.listener != nil {
		server := link.NewServer(guestConfig)
		work.Go(func() { _ = server.Serve(ctx, way.listener) })
	}
	connector := link.Connector{
		Config: hostConfig, Dial: way.dial, Conns: c.conns,
		Changed: func(s link.State) { b.states <- s },
	}
	work.Go(func() { _ = connector.Run(ctx) })
	b.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
		b.host.close()
		b.guest.close()
	})
	t.Cleanup(b.stop)
	b.session = wait.For(t, patience, "the link to come up", b.host.up)
	if way.listener != nil {
		b.remote = wait.For(t, patience, "the guest's session", b.guest.up)
	}
	return b
}

// forward listens on the loopback and carries every connection over s to
// destination. It returns its address.
func (b *bridge) forward(t testing.TB, s *link.Session, destination netip.AddrPort) string {
	t.Helper()
	return acceptTCP(t, func(c *net.TCPConn, _ *sync.WaitGroup) {
		_ = s.OpenStream(b.host.socket(c), c.RemoteAddr().(*net.TCPAddr).AddrPort(), destination, &b.stats)
	}).String()
}

// serveTCP accepts connections for a handler until the test ends. The handler's
// connection is closed when it returns.
func serveTCP(t testing.TB, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	return acceptTCP(t, func(c *net.TCPConn, work *sync.WaitGroup) {
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		work.Go(func() { defer c.Close(); handle(c) })
	})
}

// acceptTCP hands out the connections to a port of the loopback until the test
// ends, which waits for the work of those that took them.
func acceptTCP(t testing.TB, take func(*net.TCPConn, *sync.WaitGroup)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			take(conn.(*net.TCPConn), &work)
		}
	})
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what comes, and its end. It keeps io.Copy from splicing, with
// pipes that only the garbage collector closes.
func echo(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// dialTCP connects to a forward.
func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return c.(*net.TCPConn)
}

// pairs gives a function that makes connected pairs: the client of a forward,
// and the connection that the server at its other end has accepted.
func (b *bridge) pairs(t testing.TB) func(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	addr := b.forward(t, b.session, l.Addr().(*net.TCPAddr).AddrPort())
	return func(t testing.TB) (client, server *net.TCPConn) {
		t.Helper()
		client = dialTCP(t, addr)
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		return client, c.(*net.TCPConn)
	}
}
