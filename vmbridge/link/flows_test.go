package link_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// usage is what must return to its baseline.
type usage struct{ goroutines, descriptors int }

func used() usage {
	u := usage{goroutines: runtime.NumGoroutine()}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil { // elsewhere goroutines must do
		u.descriptors = len(entries)
	}
	return u
}

// settled waits until what is used has not changed for a moment: starting and
// ending take their time.
func settled(t testing.TB) usage {
	t.Helper()
	last, calm := used(), 0
	wait.Until(t, patience, "calm", func() bool {
		now := used()
		if now != last {
			last, calm = now, 0
		}
		calm++
		return calm == 20
	})
	return last
}

// idlePipes is how many pipes the two ends of a link keep for the next burst.
const idlePipes = 2 * 8

// checkUsage waits until no more is used than at the baseline, pipes apart.
func checkUsage(t testing.TB, baseline usage, pipes int) {
	t.Helper()
	var now usage
	defer func() {
		if t.Failed() {
			t.Logf("%+v, and %+v before", now, baseline)
		}
	}()
	wait.Until(t, patience, "goroutines and descriptors to return to the baseline", func() bool {
		now = used()
		return now.goroutines <= baseline.goroutines && now.descriptors <= baseline.descriptors+2*pipes
	})
}

// D6: a thousand connections at once, all alive, all with data of their own.
func TestManyFlows(t *testing.T) {
	for _, c := range []carrier{unixCarrier(2), memoryCarrier(2)} {
		t.Run(c.name, func(t *testing.T) {
			outside := settled(t)
			b := newBridge(t, c)
			addr := b.forward(t, b.session, serveTCP(t, echo))
			baseline := settled(t)
			const count = 1000
			conns := make([]*net.TCPConn, count)
			for i := range conns {
				conns[i] = dialTCP(t, addr)
			}
			var work sync.WaitGroup
			for i, conn := range conns {
				work.Go(func() {
					want := noise(100 + i)
					got := make([]byte, len(want))
					for range 3 {
						if _, err := conn.Write(want); err != nil {
							t.Error(err)
						}
						if _, err := io.ReadFull(conn, got); !bytes.Equal(got, want) || err != nil {
							t.Errorf("flow %d: the echo differs, %v", i, err)
						}
					}
				})
			}
			work.Wait()
			if n := b.stats.Flows.Load(); n != count {
				t.Errorf("%d flows are counted", n)
			}
			for i, conn := range conns {
				if i%2 == 0 {
					_ = conn.Close()
				} else {
					_ = reset(conn)
				}
			}
			checkUsage(t, baseline, 0)
			if n := b.session.Flows() + b.remote.Flows(); n != 0 || b.stats.Flows.Load() != 0 {
				t.Errorf("%d flows are left", n)
			}
			b.stop()
			outside.goroutines += 4 // the forward and the server, which end with the test
			outside.descriptors += 4
			checkUsage(t, outside, 0)
		})
	}
}

// D6: ten thousand connections one after another, of every kind of end, leave
// nothing behind.
func TestSequentialFlows(t *testing.T) {
	b := newBridge(t, unixCarrier(2))
	addr := b.forward(t, b.session, serveTCP(t, echo))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := b.forward(t, b.session, closed.Addr().(*net.TCPAddr).AddrPort())
	_ = closed.Close()
	baseline := settled(t)
	const workers, each = 8, 1250
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			buf := make([]byte, 8)
			for i := range each {
				target := addr
				if i%10 == 0 {
					target = refused
				}
				c, err := net.Dial("tcp", target)
				if err != nil {
					if target == addr {
						t.Error(err)
					}
					continue
				}
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				_, werr := c.Write(buf)
				_, rerr := io.ReadFull(c, buf)
				if err := errors.Join(werr, rerr); err != nil && target == addr {
					t.Error(err)
				}
				switch i % 3 {
				case 0: // the server closes last
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				case 1:
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				_ = c.Close()
			}
		})
	}
	work.Wait()
	checkUsage(t, baseline, 0)
}

// Bulk moves through pipes of the kernel: their number is bounded, and all of
// them are closed with the session.
func TestPipesAreClosed(t *testing.T) {
	outside := settled(t)
	b := newBridge(t, unixCarrier(2))
	addr := b.forward(t, b.session, serveTCP(t, echo))
	baseline := settled(t)
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() { roundTrip(t, dialTCP(t, addr), 4<<20) })
	}
	work.Wait()
	checkUsage(t, baseline, idlePipes)
	// Sessions that end in the middle of bulk leave nothing at all.
	pair := b.pairs(t)
	for range 3 {
		client, _ := pair(t)
		writeUntilStalled(t, client)
		outside.descriptors += 2 // the test's own
	}
	b.stop()
	outside.goroutines += 6
	outside.descriptors += 6
	checkUsage(t, outside, 0)
}

// D7: hundreds of dials that get no answer stall nobody else.
func TestBlackHoles(t *testing.T) {
	hole := make(chan *link.Stream, 1024)
	server := serveTCP(t, echo)
	b := newBridge(t, unixCarrier(1), bridgeOptions{ends: func(_, guest *end) {
		answer := &end{ctx: guest.ctx}
		guest.stream = func(s *link.Stream) {
			if s.Destination() == loopback {
				hole <- s
				return
			}
			answer.Stream(s)
		}
		t.Cleanup(answer.work.Wait)
	}})
	addr := b.forward(t, b.session, server)
	alone := echoTime(t, addr)
	nowhere := b.forward(t, b.session, loopback)
	baseline := settled(t)
	const count = 500
	var lost []*net.TCPConn
	for range count {
		c := dialTCP(t, nowhere)
		_, _ = c.Write(make([]byte, 10_000))
		lost = append(lost, c)
	}
	if beside := echoTime(t, addr); beside > 10*alone+2*time.Second {
		t.Errorf("4 MiB there and back take %s alone, and %s beside black holes", alone, beside)
	}
	// Some are refused at last, some give up before.
	for i, c := range lost {
		s := wait.For(t, patience, "a stream", hole)
		if i%2 == 0 {
			s.Refuse(wire.CodeTimedOut)
		} else {
			_ = reset(c)
		}
	}
	for i, c := range lost {
		if i%2 == 0 {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, connReset) {
				t.Errorf("a client of a black hole sees %v", err)
			}
			_ = c.Close()
		}
	}
	checkUsage(t, baseline, idlePipes)
}

// The guest opens flows as the host does.
func TestFlowsOfTheGuest(t *testing.T) {
	for _, c := range []carrier{unixCarrier(2), memoryCarrier(2)} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, c)
			out := b.forward(t, b.remote, serveTCP(t, echo))
			back := b.forward(t, b.session, serveTCP(t, echo))
			var work sync.WaitGroup
			for range 10 {
				work.Go(func() { roundTrip(t, dialTCP(t, out), 1<<20) })
				work.Go(func() { roundTrip(t, dialTCP(t, back), 1<<20) })
			}
			work.Wait()
			if in, out := b.session.Stats().BytesIn.Load(), b.session.Stats().BytesOut.Load(); in != 10<<20 || out != 10<<20 {
				t.Errorf("the host has counted %d and %d bytes of the guest's flows", in, out)
			}
		})
	}
}

// Cutting the flows resets both ends of each, and the link goes on.
func TestCutFlows(t *testing.T) {
	b := newBridge(t, unixCarrier(2))
	pair := b.pairs(t)
	var conns []*net.TCPConn
	for range 20 {
		client, server := pair(t)
		conns = append(conns, client, server)
	}
	b.session.CutFlows()
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, connReset) {
			t.Errorf("a flow that was cut sees %v", err)
		}
	}
	client, server := pair(t)
	go func() { defer server.Close(); echo(server) }()
	roundTrip(t, client, 1000)
}

// The end of a session resets its flows, wherever they are.
func TestSessionEndsWithOpenFlows(t *testing.T) {
	for _, c := range []carrier{unixCarrier(2), memoryCarrier(2)} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, c)
			pair := b.pairs(t)
			type state struct {
				name string
				do   func(client, server *net.TCPConn)
			}
			var conns []*net.TCPConn
			for _, s := range []state{
				{"idle", func(_, _ *net.TCPConn) {}},
				{"stalled", func(client, _ *net.TCPConn) { writeUntilStalled(t, client) }},
				{"stalled the other way", func(_, server *net.TCPConn) { writeUntilStalled(t, server) }},
				{"half-closed", func(client, server *net.TCPConn) {
					_ = client.CloseWrite()
					_, _ = server.Read(make([]byte, 1))
				}},
			} {
				client, server := pair(t)
				s.do(client, server)
				conns = append(conns, client, server)
			}
			b.session.Close(wire.CodeShutdown, "enough")
			for _, c := range conns {
				if _, err := io.Copy(io.Discard, c); !errors.Is(err, connReset) && err != nil {
					t.Error(err)
				}
				_ = c.Close()
			}
			wait.For(t, patience, "the host's end", b.host.down)
			err := wait.For(t, patience, "the guest's end", b.guest.down)
			var g *link.GoodbyeError
			if !errors.As(err, &g) || g.Code != wire.CodeShutdown || g.Reason != "enough" {
				t.Errorf("the guest's session ended with %v", err)
			}
			if err := b.session.OpenStream(&net.TCPConn{}, loopback, loopback, &b.stats); !errors.Is(err, link.ErrClosed) {
				t.Errorf("a stream of a session that is over: %v", err)
			}
			if _, err := b.session.OpenDatagrams(loopback, loopback, 0, &b.stats, nil, nil); !errors.Is(err, link.ErrClosed) {
				t.Errorf("a flow of a session that is over: %v", err)
			}
			b.session.Close(wire.CodeShutdown, "again")
		})
	}
}
