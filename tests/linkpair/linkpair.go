// Package linkpair makes a link with both of its ends in the test's own process.
package linkpair

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Pair is the two ends of one session, over a unix socket. Nothing follows a
// session that has ended.
type Pair struct {
	Host, Guest *link.Session
	// Close ends the session and waits for it. The end of the test does so too.
	Close func()
}

// limit is how long a link may take to come up.
const limit = 20 * time.Second

// New joins two handlers by a link with so many connections.
func New(t testing.TB, host, guest link.Handler, conns int) Pair {
	t.Helper()
	dir, err := os.MkdirTemp("", "link") // shorter than a test's own: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "link")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	h, g := newEnd(host), newEnd(guest)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = link.NewServer(link.Config{Handler: g, Log: log}).Serve(ctx, l) })
	var dialled atomic.Int64
	connector := link.Connector{
		Config: link.Config{Handler: h, Log: log},
		Conns:  conns,
		Dial: func(ctx context.Context) (net.Conn, error) {
			if dialled.Add(1) > int64(conns) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}
	work.Go(func() { _ = connector.Run(ctx) })
	p := Pair{Close: sync.OnceFunc(func() { cancel(); work.Wait() })}
	t.Cleanup(p.Close)
	p.Host = wait.For(t, limit, "the host's end of a link", h.up)
	p.Guest = wait.For(t, limit, "the guest's end of a link", g.up)
	return p
}

// Nobody is a handler that refuses every flow, to be embedded by those who take
// some.
type Nobody struct{}

var _ link.Handler = Nobody{}

// Up implements link.Handler.
func (Nobody) Up(*link.Session) {}

// Down implements link.Handler.
func (Nobody) Down(*link.Session, error) {}

// Message implements link.Handler.
func (Nobody) Message(*link.Session, message.Message) {}

// Stream implements link.Handler.
func (Nobody) Stream(s *link.Stream) { s.Refuse(wire.CodeRefused) }

// Datagrams implements link.Handler.
func (Nobody) Datagrams(f *link.DatagramFlow) { f.Refuse(wire.CodeRefused) }

// end is a handler that tells when its session is up.
type end struct {
	link.Handler
	up chan *link.Session
}

func newEnd(h link.Handler) end { return end{h, make(chan *link.Session, 1)} }

func (e end) Up(s *link.Session) {
	e.Handler.Up(s)
	e.up <- s
}
