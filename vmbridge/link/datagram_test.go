package link_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// association is one open UDP flow and what has come back on it.
type association struct {
	flow     *link.DatagramFlow
	received chan []byte
	ended    chan wire.Code
}

func associate(t testing.TB, s *link.Session, destination netip.AddrPort, stats *link.Stats) *association {
	t.Helper()
	a := &association{received: make(chan []byte, 1<<16), ended: make(chan wire.Code, 16)}
	flow, err := s.OpenDatagrams(loopback, destination, 0, stats, func(payloads [][]byte) {
		for _, p := range payloads {
			a.received <- bytes.Clone(p)
		}
	}, func(code wire.Code) { a.ended <- code })
	if err != nil {
		t.Fatal(err)
	}
	a.flow = flow
	return a
}

func (a *association) send(p []byte) {
	var batch link.DatagramBatch
	batch.Add(a.flow, p)
	batch.Send()
}

// serveUDP echoes datagrams until the test ends.
func serveUDP(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, peer, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:n], peer)
		}
	})
	t.Cleanup(func() { _ = conn.Close(); work.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// E2: datagrams keep their boundaries.
func testDatagramSizes(t *testing.T, b *bridge) {
	a := associate(t, b.session, serveUDP(t), &b.stats)
	for _, size := range []int{0, 1, 1472, 1473, 9000, 32768, 32769, 65507} {
		want := noise(size)
		a.send(want)
		if got := wait.For(t, patience, "an echo", a.received); !bytes.Equal(got, want) {
			t.Errorf("%d bytes became %d", size, len(got))
		}
	}
	a.flow.Close(wire.CodeIdle)
}

// loopBack makes an end send every datagram back at once, with nothing between
// it and the link that could drop one.
func loopBack(f *link.DatagramFlow) {
	var batch link.DatagramBatch
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			batch.Add(f, p)
		}
		batch.Send()
	}, func(wire.Code) {})
}

func answering(datagrams func(*link.DatagramFlow)) bridgeOptions {
	return bridgeOptions{ends: func(_, guest *end) { guest.datagrams = datagrams }}
}

// A batch of many datagrams of two flows arrives whole and in order.
func TestDatagramBatches(t *testing.T) {
	for _, c := range []carrier{unixCarrier(1), memoryCarrier(1)} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, c, answering(loopBack))
			flows := []*association{associate(t, b.session, loopback, &b.stats), associate(t, b.session, loopback, &b.stats)}
			const count = 500
			var batch link.DatagramBatch
			for i := range count {
				for _, a := range flows {
					batch.Add(a.flow, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 50))
				}
			}
			batch.Send()
			for _, a := range flows {
				for i := range count {
					if got := wait.For(t, patience, "a datagram", a.received); !bytes.Equal(got, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 50)) {
						t.Fatalf("datagram %d is %v", i, got[:2])
					}
				}
			}
			if dropped := b.stats.DroppedDatagrams.Load(); dropped != 0 {
				t.Errorf("%d datagrams were dropped", dropped)
			}
		})
	}
}

// UDP does not delay TCP, however much of it there is.
func TestDatagramFloodDelaysNobody(t *testing.T) {
	for _, c := range []carrier{unixCarrier(1), memoryCarrier(1)} {
		t.Run(c.name, func(t *testing.T) {
			var flood sync.WaitGroup
			b := newBridge(t, c, answering(func(f *link.DatagramFlow) { f.Accept(func([][]byte) {}, func(wire.Code) {}) }))
			a := associate(t, b.session, loopback, &b.stats)
			stop := make(chan struct{})
			flood.Go(func() {
				var batch link.DatagramBatch
				payload := noise(1200)
				for {
					select {
					case <-stop:
						return
					default:
					}
					for range 32 {
						batch.Add(a.flow, payload)
					}
					batch.Send()
				}
			})
			defer flood.Wait()
			defer close(stop)
			client, server := b.pairs(t)(t)
			go echo(server)
			buf := make([]byte, 1)
			for range 100 {
				if _, err := client.Write(buf); err != nil {
					t.Fatal(err)
				}
				if _, err := client.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// The peer bounds how many flows there are, of both kinds (E3), and how many
// have ended makes room.
func TestMaxFlows(t *testing.T) {
	const limit = 8
	b := newBridge(t, unixCarrier(2), answering(loopBack), bridgeOptions{guest: func(cfg *link.Config) { cfg.MaxFlows = limit }})
	var open []*association
	for range limit { // all on one of the connections
		a := associate(t, b.session, loopback, &b.stats)
		a.send([]byte("x"))
		wait.For(t, patience, "an echo", a.received)
		open = append(open, a)
	}
	over := associate(t, b.session, loopback, &b.stats)
	if code := wait.For(t, patience, "a refusal", over.ended); code != wire.CodeResources {
		t.Errorf("one flow too many ended with %s", code)
	}
	open[0].flow.Close(wire.CodeIdle)
	wait.Until(t, patience, "room for another flow", func() bool {
		a := associate(t, b.session, loopback, &b.stats)
		a.send([]byte("x"))
		select {
		case <-a.received:
			return true
		case <-a.ended:
			return false
		}
	})
}

// E3: the end of a flow is told to the other side once, with its code; the next
// flow works.
func TestDatagramFlowsEnd(t *testing.T) {
	flows := make(chan *link.DatagramFlow, 16)
	ended := make(chan wire.Code, 16)
	b := newBridge(t, unixCarrier(2), answering(func(f *link.DatagramFlow) {
		f.Accept(func([][]byte) {}, func(code wire.Code) { ended <- code })
		flows <- f
	}))
	a := associate(t, b.session, loopback, &b.stats)
	f := wait.For(t, patience, "the flow", flows)
	if f.Destination() != loopback || f.Source() != loopback {
		t.Errorf("from %s to %s", f.Source(), f.Destination())
	}
	f.Close(wire.CodeIdle)
	f.Close(wire.CodeIdle)
	if code := wait.For(t, patience, "the end", a.ended); code != wire.CodeIdle || !a.flow.Closed() {
		t.Errorf("ended with %s", code)
	}

	a = associate(t, b.session, loopback, &b.stats)
	wait.For(t, patience, "the next flow", flows)
	a.flow.Close(wire.CodeIdle)
	if code := wait.For(t, patience, "the end", ended); code != wire.CodeIdle {
		t.Errorf("ended with %s", code)
	}

	a = associate(t, b.session, loopback, &b.stats)
	wait.For(t, patience, "a flow to cut", flows)
	b.session.CutFlows()
	wait.For(t, patience, "the end here", a.ended)
	wait.For(t, patience, "the end there", ended)

	a = associate(t, b.session, loopback, &b.stats)
	wait.For(t, patience, "a flow that outlives its session", flows)
	b.session.Close(wire.CodeShutdown, "")
	wait.For(t, patience, "the end here", a.ended)
	wait.For(t, patience, "the end there", ended)
	b.stop()
	if len(a.ended) > 0 || len(ended) > 0 {
		t.Error("an end was told twice")
	}
	if n := b.stats.Flows.Load(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
}

// A flow may end, because its session does, before or while its handler accepts
// it. The handler is told all the same, once: it holds a socket for the flow.
func TestDatagramFlowEndsWhileAccepted(t *testing.T) {
	for i := range 50 {
		told := make(chan wire.Code, 2)
		arrived, ending := make(chan struct{}), make(chan struct{})
		b := newBridge(t, memoryCarrier(1), answering(func(f *link.DatagramFlow) {
			close(arrived)
			<-ending
			f.Accept(func([][]byte) {}, func(code wire.Code) { told <- code })
		}))
		associate(t, b.session, loopback, &b.stats)
		wait.For(t, patience, "the flow", arrived)
		if i%2 == 0 {
			close(ending) // at the same time
			b.remote.Close(wire.CodeShutdown, "")
		} else {
			b.remote.Close(wire.CodeShutdown, "")
			close(ending)
		}
		wait.For(t, patience, "the end", told)
		b.stop()
		if len(told) > 0 {
			t.Error("told twice")
		}
	}
}

// A peer that cannot keep up with new flows is not buried in them: opening fails,
// with little on the way, and works again later.
func TestOpenDatagramsOnABusyLink(t *testing.T) {
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	b := newBridge(t, unixCarrier(1), bridgeOptions{ends: func(_, guest *end) {
		guest.datagrams = func(f *link.DatagramFlow) {
			<-held
			f.Accept(func([][]byte) {}, func(wire.Code) {})
		}
	}})
	defer release()
	open := func() error {
		f, err := b.session.OpenDatagrams(nowhere, nowhere, 0, &b.stats, func([][]byte) {}, func(wire.Code) {})
		if err == nil {
			f.Close(wire.CodeIdle)
		}
		return err
	}
	var err error
	count := 0
	for ; err == nil && count < 100_000; count++ {
		err = open()
	}
	if !errors.Is(err, link.ErrBusy) || count > 20_000 {
		t.Fatalf("after %d flows: %v", count, err)
	}
	release()
	wait.Until(t, patience, "room for another flow", func() bool { return open() == nil })
}
