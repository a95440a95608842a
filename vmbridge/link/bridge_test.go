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

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// guest is a handler that connects the flows it is asked for.
type guest struct {
	work  sync.WaitGroup
	up    chan *link.Session
	heard chan message.Message
}

func newGuest() *guest {
	return &guest{up: make(chan *link.Session, 16), heard: make(chan message.Message, 16)}
}

func (g *guest) Up(s *link.Session)                         { g.up <- s }
func (g *guest) Down(*link.Session, error)                  {}
func (g *guest) Message(_ *link.Session, m message.Message) { g.heard <- m }

func (g *guest) Stream(s *link.Stream) {
	g.work.Go(func() {
		conn, err := net.Dial("tcp", s.Destination().String())
		if err != nil {
			s.Refuse(link.CodeOf(err))
			return
		}
		s.Accept(conn.(*net.TCPConn))
	})
}

func (g *guest) Datagrams(f *link.DatagramFlow) {
	conn, err := net.Dial("udp", f.Destination().String())
	if err != nil {
		f.Refuse(link.CodeOf(err))
		return
	}
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			_, _ = conn.Write(p)
		}
	}, func(_ linkCode) { _ = conn.Close() })
	g.work.Go(func() {
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

// bridge is a link between two ends in this process, with one forward.
type bridge struct {
	host  *guest
	guest *guest
	stats link.Stats
}

// carrier is how bytes of a test's link cross.
type carrier struct {
	name   string
	conns  int
	listen func(t *testing.T) (net.Listener, func(context.Context) (net.Conn, error))
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// newBridge starts both ends and waits until the link is up.
func newBridge(t *testing.T, c carrier) (*bridge, *link.Session) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := &bridge{host: newGuest(), guest: newGuest()}
	listener, dial := c.listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	server := link.NewServer(link.Config{Key: testKey, Name: "test guest", Handler: b.guest, Log: log})
	work.Go(func() { _ = server.Serve(ctx, listener) })
	connector := link.Connector{
		Config: link.Config{Key: testKey, Handler: b.host, Log: log},
		Dial:   dial, Conns: c.conns,
		Changed: func(s link.State) { t.Logf("%s %s", s.Phase, s.Reason) },
	}
	work.Go(func() { _ = connector.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		work.Wait()
		b.guest.work.Wait()
	})
	select {
	case s := <-b.host.up:
		return b, s
	case <-time.After(10 * time.Second):
		t.Fatal("the link did not come up")
		return nil, nil
	}
}

// forward listens on the loopback and carries every connection to destination.
func (b *bridge) forward(t *testing.T, s *link.Session, destination netip.AddrPort) string {
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
			_ = s.OpenStream(conn.(*net.TCPConn), conn.RemoteAddr().(*net.TCPAddr).AddrPort(), destination, &b.stats)
		}
	})
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	return l.Addr().String()
}
