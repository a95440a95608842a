package reach

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/tests/linkpair"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// bed is a link whose host's end is a Reach, and whose guest's end is the test.
type bed struct {
	*Reach
	guest *link.Session
	stats link.Stats // of the guest's flows
	down  func()
}

// hostEnd gives the flows of the link called vm to the Reach.
type hostEnd struct {
	linkpair.Nobody
	reach *Reach
}

func (h hostEnd) Stream(s *link.Stream)          { h.reach.Stream("vm", s) }
func (h hostEnd) Datagrams(f *link.DatagramFlow) { h.reach.Datagrams("vm", f) }

func quiet() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// newBed makes a link with a Reach that allows everything, unless told otherwise.
func newBed(t *testing.T, change func(*Config)) *bed {
	t.Helper()
	cfg := Config{Policy: Policy{Enabled: true}, Log: quiet()}
	if change != nil {
		change(&cfg)
	}
	b := &bed{Reach: New(cfg)}
	pair := linkpair.New(t, hostEnd{reach: b.Reach}, linkpair.Nobody{}, 1)
	b.guest, b.down = pair.Guest, pair.Close
	t.Cleanup(b.Reach.Close)
	return b
}

// ask opens a TCP flow and returns its answer; the stream waits to be attached
// where the code is 0.
func (b *bed) ask(t *testing.T, to string) (*link.Stream, wire.Code) {
	t.Helper()
	stream, answer := b.begin(t, to)
	return stream, wait.For(t, patience, "the answer for "+to, answer)
}

func (b *bed) begin(t *testing.T, to string) (*link.Stream, <-chan wire.Code) {
	t.Helper()
	answer := make(chan wire.Code, 1)
	stream, err := b.guest.AskStream(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(to), &b.stats,
		func(c wire.Code) { answer <- c })
	if err != nil {
		t.Fatal(err)
	}
	return stream, answer
}

// dial opens a TCP flow that must be accepted, and returns its client's end.
func (b *bed) dial(t *testing.T, to string) *net.TCPConn {
	t.Helper()
	stream, code := b.ask(t, to)
	if code != 0 {
		t.Fatalf("%s: %s", to, code)
	}
	client, carried := tcpPair(t)
	stream.Attach(carried)
	_ = client.SetDeadline(time.Now().Add(patience))
	return client
}

// tryTCP is what a client learns at an address: the first line that the server
// says, or the code.
func (b *bed) tryTCP(t *testing.T, to string) string {
	t.Helper()
	stream, code := b.ask(t, to)
	if code != 0 {
		return code.String()
	}
	client, carried := tcpPair(t)
	stream.Attach(carried)
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	line := make([]byte, 64)
	n, err := client.Read(line)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(line[:n]))
}

// port is the entry of a port, zero when it is not listed.
func (b *bed) port(protocol message.Protocol, number uint16) Port {
	for _, p := range b.Ports() {
		if p.Protocol == protocol && p.Port == number {
			return p
		}
	}
	return Port{}
}

// udpFlow is a guest's UDP client.
type udpFlow struct {
	*link.DatagramFlow
	bed     *bed
	dropped uint64 // by the link, before
	replies chan []byte
	ended   chan wire.Code
}

func (b *bed) openUDP(t *testing.T, to string) *udpFlow {
	t.Helper()
	f := &udpFlow{bed: b, dropped: b.dropped(), replies: make(chan []byte, 1024), ended: make(chan wire.Code, 1)}
	var err error
	f.DatagramFlow, err = b.guest.OpenDatagrams(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(to), 0, &b.stats,
		func(payloads [][]byte) {
			for _, p := range payloads {
				f.replies <- bytes.Clone(p)
			}
		}, func(c wire.Code) { f.ended <- c })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *udpFlow) send(payloads ...string) {
	var batch link.DatagramBatch
	for _, p := range payloads {
		batch.Add(f.DatagramFlow, []byte(p))
	}
	batch.Send()
}

// dropped counts the datagrams that the link has given up.
func (b *bed) dropped() uint64 {
	n := b.stats.DroppedDatagrams.Load()
	for _, p := range b.Ports() {
		n += p.DroppedDatagrams
	}
	return n
}

// tryUDP is what a new client gets for one datagram: the reply, or the code with
// which its flow ends. It tries again as a client does when the link has dropped it
// because the machine is too busy.
func (b *bed) tryUDP(t *testing.T, to, payload string) string {
	t.Helper()
	for {
		f := b.openUDP(t, to)
		f.send(payload)
		got, ok := f.wait(t)
		f.Close(wire.CodeIdle)
		if ok {
			return got
		}
	}
}

// outcome waits for a reply or for the end of the flow.
func (f *udpFlow) outcome(t *testing.T) string {
	t.Helper()
	got, ok := f.wait(t)
	if !ok {
		t.Skip("the machine is too busy: the link has dropped a datagram")
	}
	return got
}

// wait is not ok when the link has dropped a datagram since the flow was opened.
func (f *udpFlow) wait(t *testing.T) (got string, ok bool) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		select {
		case r := <-f.replies:
			return string(r), true
		case c := <-f.ended:
			return c.String(), true
		case <-tick.C:
			if f.bed.dropped() > f.dropped {
				return "", false
			}
		}
	}
	t.Fatal("neither a reply nor an end")
	return "", false
}

// greet serves TCP: each client gets the name of the address that it has reached,
// and then its own bytes back, up to their end.
func greet(t *testing.T, at string) (stop func()) {
	t.Helper()
	l, err := net.Listen(network("tcp", at), at)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(2 * patience))
			work.Go(func() {
				defer c.Close()
				fmt.Fprintf(c, "%s\n", c.LocalAddr())
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				_ = c.(*net.TCPConn).CloseWrite()
			})
		}
	})
	stop = sync.OnceFunc(func() { l.Close() })
	t.Cleanup(func() { stop(); work.Wait() })
	return stop
}

// network keeps a socket to the family of its address.
func network(protocol, at string) string {
	if netip.MustParseAddrPort(at).Addr().Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

// tcpPair gives two ends of a connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
