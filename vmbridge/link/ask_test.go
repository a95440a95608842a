package link_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

var nowhere = netip.MustParseAddrPort("192.0.2.1:1")

// ask asks for a stream and gives the answer's channel.
func ask(t *testing.T, s *link.Session, destination netip.AddrPort, stats *link.Stats) (*link.Stream, <-chan wire.Code) {
	t.Helper()
	answer := make(chan wire.Code, 2)
	stream, err := s.AskStream(nowhere, destination, stats, func(c wire.Code) { answer <- c })
	if err != nil {
		t.Fatal(err)
	}
	return stream, answer
}

// tcpPair gives the two ends of a connection on the loopback.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a = dialTCP(t, l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, conn.(*net.TCPConn)
}

// A stream that is asked for is told whether it is connected before it has a
// socket, and carries when it gets one, what came in between included.
func TestAskStream(t *testing.T) {
	for _, hide := range []bool{false, true} {
		b := newBridge(t, unixCarrier(2))
		server := serveTCP(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("welcome"))
			echo(c)
		})
		var stats link.Stats
		stream, answer := ask(t, b.session, server, &stats)
		if code := wait.For(t, patience, "the answer", answer); code != 0 {
			t.Fatal(code)
		}
		if n := stats.Flows.Load(); n != 1 {
			t.Errorf("%d flows", n)
		}
		outer, inner := tcpPair(t)
		b.host.hide = hide
		stream.Attach(b.host.socket(inner))
		if _, err := outer.Write([]byte(" back")); err != nil {
			t.Fatal(err)
		}
		if err := outer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(outer); string(got) != "welcome back" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		wait.Until(t, patience, "the end of the flow", func() bool { return stats.Flows.Load() == 0 && b.session.Flows() == 0 })
	}
}

// What the other side meets is the answer; the stream is over then.
func TestAskStreamRefused(t *testing.T) {
	b := newBridge(t, unixCarrier(1))
	var stats link.Stats
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, answer := ask(t, b.session, l.Addr().(*net.TCPAddr).AddrPort(), &stats)
	if code := wait.For(t, patience, "the answer", answer); code != wire.CodeRefused {
		t.Errorf("got %v", code)
	}
	wait.Until(t, patience, "the end of the flow", func() bool { return stats.Flows.Load() == 0 && b.session.Flows() == 0 })
}

// An answer that never comes is replaced by the end of the session, and Abort
// ends the wait without one.
func TestAskStreamUnanswered(t *testing.T) {
	held := make(chan *link.Stream, 2)
	b := newBridge(t, unixCarrier(1), bridgeOptions{ends: func(_, guest *end) {
		guest.stream = func(s *link.Stream) { held <- s }
	}})
	var stats link.Stats
	stream, aborted := ask(t, b.session, nowhere, &stats)
	wait.For(t, patience, "the flow", held)
	stream.Abort()
	wait.Until(t, patience, "the end of the flow on both sides", func() bool { return b.session.Flows()+b.remote.Flows() == 0 })
	_, answer := ask(t, b.session, nowhere, &stats)
	wait.For(t, patience, "the flow", held)
	b.session.Close(wire.CodeShutdown, "")
	if code := wait.For(t, patience, "the answer", answer); code == 0 {
		t.Error("connected, says the end of the session")
	}
	if len(aborted) > 0 || len(answer) > 0 {
		t.Error("answered once too often")
	}
	wait.Until(t, patience, "the end of the flow", func() bool { return stats.Flows.Load() == 0 })
}

// A socket that comes after the stream is over is reset.
func TestAttachLate(t *testing.T) {
	b := newBridge(t, unixCarrier(1))
	var stats link.Stats
	// A reset before that would meet the connect itself, whose answer is another.
	answered := make(chan struct{})
	stream, answer := ask(t, b.session, serveTCP(t, func(c *net.TCPConn) {
		<-answered
		_ = reset(c)
	}), &stats)
	code := wait.For(t, patience, "the answer", answer)
	close(answered)
	if code != 0 {
		t.Fatal(code)
	}
	wait.Until(t, patience, "the reset", func() bool { return b.session.Flows() == 0 })
	outer, inner := tcpPair(t)
	stream.Attach(inner)
	if _, err := outer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// Flows of the peer are counted where the handler says.
func TestCount(t *testing.T) {
	var theirs link.Stats
	b := newBridge(t, unixCarrier(1), bridgeOptions{ends: func(_, guest *end) {
		guest.stream = func(s *link.Stream) {
			s.Count(&theirs)
			guest.connect(s)
		}
	}})
	conn := dialTCP(t, b.forward(t, b.session, serveTCP(t, echo)))
	if _, err := conn.Write([]byte("five!")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := theirs.Flows.Load(); n != 1 || b.remote.Stats().Flows.Load() != 0 {
		t.Errorf("%d flows counted, %d in the session", n, b.remote.Stats().Flows.Load())
	}
	conn.Close()
	wait.Until(t, patience, "the end of the flow", func() bool { return theirs.Flows.Load() == 0 })
	if in, out := theirs.BytesIn.Load(), theirs.BytesOut.Load(); in != 5 || out != 5 {
		t.Errorf("%d bytes in, %d out", in, out)
	}
}
