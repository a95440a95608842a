package link_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// frame writes a header that may be wrong.
func frame(kind wire.Type, length int, flow uint32, payload []byte) []byte {
	b := make([]byte, wire.HeaderSize, wire.HeaderSize+len(payload))
	wire.PutHeader(b, wire.Header{Type: kind, Length: length, Flow: flow})
	return append(b, payload...)
}

// H2: a frame that the specification forbids ends the link with a reason, and
// the link comes back.
func TestForbiddenFramesEndTheLink(t *testing.T) {
	nowhere := loopback
	cases := []struct {
		name   string
		frames func(p *rawPeer) []byte
	}{
		{"unknown mandatory", func(*rawPeer) []byte { return frame(0x30, 0, 0, nil) }},
		{"type 0", func(*rawPeer) []byte { return frame(0, 0, 0, nil) }},
		{"oversized ping", func(*rawPeer) []byte { return frame(wire.TypePing, 2049, 0, nil) }},
		{"oversized data", func(p *rawPeer) []byte { return frame(wire.TypeData, wire.MaxData+1, p.flow(1), nil) }},
		{"oversized datagram", func(p *rawPeer) []byte { return frame(wire.TypeDatagram, wire.MaxDatagram+1, p.flow(1), nil) }},
		{"oversized control", func(*rawPeer) []byte { return frame(wire.TypeControl, wire.MaxControl+1, 0, nil) }},
		{"oversized optional", func(*rawPeer) []byte { return frame(0xb0, wire.MaxData+1, 0, nil) }},
		{"second hello", func(*rawPeer) []byte { return wire.AppendHello(nil, hello()) }},
		{"second challenge", func(*rawPeer) []byte { return wire.AppendChallenge(nil, challenge()) }},
		{"second proof", func(*rawPeer) []byte { return wire.AppendProof(nil, wire.Proof{}) }},
		{"second welcome", func(*rawPeer) []byte { return wire.AppendWelcome(nil, wire.Welcome{}) }},
		{"empty control", func(*rawPeer) []byte { return frame(wire.TypeControl, 0, 0, nil) }},
		{"control that is no JSON", func(*rawPeer) []byte { return wire.AppendFrame(nil, wire.TypeControl, 0, []byte("hello")) }},
		{"control with a bad listener", func(*rawPeer) []byte {
			return wire.AppendFrame(nil, wire.TypeControl, 0, []byte(`{"listeners":{"add":[{"protocol":"tcp"}]}}`))
		}},
		{"open of no flow", func(p *rawPeer) []byte {
			return wire.AppendOpen(nil, 0, wire.Open{Network: wire.TCP, Destination: nowhere})
		}},
		{"open of the other side's flow", func(p *rawPeer) []byte {
			return wire.AppendOpen(nil, p.flow(1)+1, wire.Open{Network: wire.TCP, Destination: nowhere})
		}},
		{"open twice", func(p *rawPeer) []byte {
			return append(p.open(1, wire.UDP, nowhere), p.open(1, wire.UDP, nowhere)...)
		}},
		{"open of an unknown network", func(p *rawPeer) []byte { return p.open(1, 9, nowhere) }},
		{"open without destination", func(p *rawPeer) []byte { return p.open(1, wire.TCP, netip.AddrPort{}) }},
		{"open with a mapped address", func(p *rawPeer) []byte {
			o := append([]byte{byte(wire.TCP), 0, 0, 0, 16}, netip.MustParseAddr("::ffff:127.0.0.1").AsSlice()...)
			return wire.AppendFrame(nil, wire.TypeOpen, p.flow(1), append(o, 0, 80))
		}},
		{"empty open", func(p *rawPeer) []byte { return frame(wire.TypeOpen, 0, p.flow(1), nil) }},
		{"open cut short", func(p *rawPeer) []byte {
			return wire.AppendFrame(nil, wire.TypeOpen, p.flow(1), []byte{byte(wire.TCP), 4, 127, 0})
		}},
		{"data beyond the credit", func(p *rawPeer) []byte {
			b := p.open(1, wire.TCP, nowhere)
			b = wire.AppendFrame(b, wire.TypeData, p.flow(1), make([]byte, link.InitialCredit))
			return wire.AppendFrame(b, wire.TypeData, p.flow(1), []byte("x"))
		}},
		{"data after fin", func(p *rawPeer) []byte {
			b := p.open(1, wire.TCP, nowhere)
			b = wire.AppendFrame(b, wire.TypeFin, p.flow(1), nil)
			return wire.AppendFrame(b, wire.TypeData, p.flow(1), []byte("x"))
		}},
		{"short credit", func(*rawPeer) []byte { return wire.AppendFrame(nil, wire.TypeCredit, 9, []byte("abc")) }},
		{"short reset", func(*rawPeer) []byte { return wire.AppendFrame(nil, wire.TypeReset, 9, []byte("a")) }},
		{"empty refused", func(*rawPeer) []byte { return wire.AppendFrame(nil, wire.TypeRefused, 9, nil) }},
		{"short goodbye", func(*rawPeer) []byte { return wire.AppendFrame(nil, wire.TypeGoodbye, 0, []byte("a")) }},
	}
	attacks(t, nil, func(t *testing.T, v *victim) {
		v.stream = func(*link.Stream) {} // never answered
		v.datagrams = loopBack
		for _, c := range cases {
			go func(p *rawPeer) { _, _ = p.Write(c.frames(p)) }(v.peer) // in memory, nobody may read all of it
			_, payload := v.peer.until(t, wire.TypeGoodbye)
			g, err := wire.ParseGoodbye(payload)
			if err != nil || g.Code != wire.CodeProtocolError || g.Reason == "" {
				t.Errorf("%s: goodbye %+v, %v", c.name, g, err)
			}
			if err := wait.For(t, patience, "the end", v.down); !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, message.ErrInvalid) {
				t.Errorf("%s: the session ended with %v", c.name, err)
			}
			if _, _, err := link.ReadFrame(v.peer); err == nil {
				t.Errorf("%s: the connection lives on", c.name)
			}
			_ = v.peer.Close()
			v.peer = v.again()
		}
	})
}

// H2: what crossed with the end of a flow, what may be skipped, and what makes
// no sense but does no harm, leaves the link alone.
func TestHarmlessFramesAreSkipped(t *testing.T) {
	attacks(t, nil, func(t *testing.T, v *victim) {
		p := v.peer
		ours, theirs := p.flow(7), p.flow(7)+1
		for _, flow := range []uint32{0, ours, theirs, 1<<32 - 1, 1<<32 - 2} {
			p.send(t,
				wire.AppendFrame(nil, wire.TypeData, flow, noise(100_000)),
				wire.AppendFrame(nil, wire.TypeData, flow, nil),
				wire.AppendFrame(nil, wire.TypeDatagram, flow, noise(65507)),
				wire.AppendFrame(nil, wire.TypeFin, flow, nil),
				wire.AppendCredit(nil, flow, 1<<32-1),
				wire.AppendCode(nil, wire.TypeReset, flow, wire.CodeOther),
				wire.AppendCode(nil, wire.TypeRefused, flow, 60000),
				wire.AppendFrame(nil, wire.TypeOpened, flow, nil),
			)
		}
		for _, size := range []int{0, 1, 1000, wire.MaxData} {
			p.send(t, wire.AppendFrame(nil, 0xb0, 5, noise(size)))
		}
		p.send(t, wire.AppendFrame(nil, wire.TypePong, 0, []byte("unasked")),
			wire.AppendFrame(nil, wire.TypeControl, 0, []byte(`{"from the future": {"x": 1}}`)))
		p.alive(t)
		if m := wait.For(t, patience, "a message", v.heard); m.Listeners != nil || m.Agent != nil {
			t.Errorf("%+v", m)
		}
		// Frames of one kind of flow for the other, and a fin that comes twice.
		v.datagrams, v.stream = loopBack, func(*link.Stream) {}
		p.send(t, p.open(1, wire.UDP, loopback), p.open(2, wire.TCP, loopback),
			wire.AppendFrame(nil, wire.TypeData, p.flow(1), noise(100_000)),
			wire.AppendFrame(nil, wire.TypeFin, p.flow(1), nil),
			wire.AppendCredit(nil, p.flow(1), 5),
			wire.AppendFrame(nil, wire.TypeDatagram, p.flow(2), noise(100)),
			wire.AppendFrame(nil, wire.TypeFin, p.flow(2), nil),
			wire.AppendFrame(nil, wire.TypeFin, p.flow(2), nil),
		)
		p.alive(t)
	})
}

// H2: text from the peer is safe to print.
func TestGoodbyeReasonIsCleaned(t *testing.T) {
	attacks(t, nil, func(t *testing.T, v *victim) {
		v.peer.send(t, wire.AppendGoodbye(nil, wire.Goodbye{Code: 60000, Reason: "\x1b[2J" + strings.Repeat("x\n", 900)}))
		err := wait.For(t, patience, "the end", v.down)
		var g *link.GoodbyeError
		if !errors.As(err, &g) || strings.ContainsAny(err.Error(), "\x1b\n") || len(g.Reason) > 1024 {
			t.Errorf("%q", err)
		}
	})
}

// H2: a connection that ends within a frame, wherever, ends the session and
// nothing else.
func TestTruncatedFrames(t *testing.T) {
	attacks(t, nil, func(t *testing.T, v *victim) {
		v.stream = func(*link.Stream) {}
		whole := v.peer.open(1, wire.TCP, loopback)
		whole = wire.AppendFrame(whole, wire.TypeData, v.peer.flow(1), []byte("data"))
		whole = wire.AppendFrame(whole, wire.TypeControl, 0, []byte("{}"))
		for n := range whole {
			v.peer.send(t, whole[:n])
			_ = v.peer.Close()
			err := wait.For(t, patience, "the end", v.down)
			if !errors.Is(err, io.EOF) && !errors.Is(err, connReset) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, brokenPipe) {
				t.Errorf("cut at %d: %v", n, err)
			}
			v.peer = v.again()
		}
	})
}

// H2: a peer that asks and does not read ends its link; memory stays bounded.
func TestUnreadAnswersEndTheLink(t *testing.T) {
	change := func(cfg *link.Config) { cfg.MaxFlows = 1 }
	t.Run("pings", func(t *testing.T) {
		attacks(t, change, func(t *testing.T, v *victim) {
			askAndNeverRead(t, v, func(uint32) []byte { return wire.AppendFrame(nil, wire.TypePing, 0, make([]byte, 2048)) })
		})
	})
	t.Run("opens", func(t *testing.T) {
		v := attackHost(t, false, change, challenge())
		v.datagrams = loopBack
		askAndNeverRead(t, v, func(i uint32) []byte { return v.peer.open(i+1, wire.UDP, loopback) })
	})
}

func askAndNeverRead(t *testing.T, v *victim, question func(i uint32) []byte) {
	before := heap()
	_ = v.peer.SetReadDeadline(time.Now())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := uint32(0); ; {
			var burst []byte
			for range 64 {
				burst = append(burst, question(i)...)
				i++
			}
			if _, err := v.peer.Write(burst); err != nil {
				return
			}
		}
	}()
	if err := wait.For(t, patience, "the end", v.down); !errors.Is(err, link.ErrUnread) {
		t.Errorf("the session ended with %v", err)
	}
	_ = v.peer.Close()
	<-stopped
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	v.again().alive(t)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// H2: however much credit a peer grants, the flow works.
func TestCreditOverflow(t *testing.T) {
	attacks(t, nil, func(t *testing.T, v *victim) {
		server := serveTCP(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write(noise(3 << 20))
		})
		p := v.peer
		p.send(t, p.open(1, wire.TCP, server))
		for range 1000 {
			p.send(t, wire.AppendCredit(nil, p.flow(1), 1<<32-1))
		}
		go func() { _, _ = p.Write(wire.AppendFrame(nil, wire.TypeData, p.flow(1), []byte("x"))) }()
		var got []byte
		for {
			h, payload, err := link.ReadFrame(p)
			if err != nil {
				t.Fatal(err)
			}
			if h.Type == wire.TypeFin {
				break
			}
			if h.Type == wire.TypeData {
				got = append(got, payload...)
			}
		}
		if !bytes.Equal(got, noise(3<<20)) {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// Credit that comes in crumbs, at any moment, always wakes the flow that waits
// for it, and no flow sends more than it may.
func TestCreditInCrumbs(t *testing.T) {
	h, c := hello(), challenge()
	h.InitialCredit, c.InitialCredit = 1, 1
	for name, attack := range map[string]func(*testing.T) *victim{
		"guest over unix":   func(t *testing.T) *victim { return attackGuest(t, false, nil, h) },
		"guest over memory": func(t *testing.T) *victim { return attackGuest(t, true, nil, h) },
		"host over unix":    func(t *testing.T) *victim { return attackHost(t, false, nil, c) },
		"host over memory":  func(t *testing.T) *victim { return attackHost(t, true, nil, c) },
	} {
		t.Run(name, func(t *testing.T) {
			v := attack(t)
			const flows, size = 20, 5000
			server := serveTCP(t, func(c *net.TCPConn) {
				// In pieces, so that data and credit wake the flow in turns.
				for p := noise(size); len(p) > 0; {
					n := min(len(p), 1+len(p)%97)
					_, _ = c.Write(p[:n])
					p = p[n:]
				}
			})
			p := v.peer
			go func() {
				for n := range uint32(flows) {
					_, _ = p.Write(p.open(n+1, wire.TCP, server))
				}
			}()
			credit := map[uint32]int{}
			got := map[uint32][]byte{}
			ended := 0
			// Grants go out beside the reading: in memory nothing is buffered.
			grants := make(chan []byte, flows*size)
			go func() {
				for g := range grants {
					_, _ = p.Write(g)
				}
			}()
			defer close(grants)
			for ended < flows {
				h, payload, err := link.ReadFrame(p)
				if err != nil {
					t.Fatalf("after %d flows: %v", ended, err)
				}
				switch h.Type {
				case wire.TypeOpened:
					credit[h.Flow] = 1
				case wire.TypeFin:
					ended++
				case wire.TypeData:
					got[h.Flow] = append(got[h.Flow], payload...)
					credit[h.Flow] -= len(payload)
					if credit[h.Flow] < 0 {
						t.Fatalf("flow %d sent more than its credit", h.Flow)
					}
					crumb := 1 + len(got[h.Flow])%61
					credit[h.Flow] += crumb
					grants <- wire.AppendCredit(nil, h.Flow, uint32(crumb))
				}
			}
			for flow, bytesGot := range got {
				if !bytes.Equal(bytesGot, noise(size)) {
					t.Errorf("flow %d: %d bytes arrived", flow, len(bytesGot))
				}
			}
		})
	}
}

// H2: flows that are opened beyond the limit are refused, one by one; what they
// send is skipped; and a session holds a bounded number of bytes for all flows.
func TestFloodOfOpens(t *testing.T) {
	const limit = 50
	attacks(t, func(cfg *link.Config) { cfg.MaxFlows, cfg.MaxQueuedBytes = limit, 1<<20 }, func(t *testing.T, v *victim) {
		v.stream = func(*link.Stream) {} // a black hole
		p := v.peer
		const opens = 500
		go func() {
			for n := range uint32(opens) {
				_, _ = p.Write(append(p.open(n+1, wire.TCP, loopback),
					wire.AppendFrame(nil, wire.TypeData, p.flow(n+1), make([]byte, link.InitialCredit))...))
			}
		}()
		refused, reset := 0, 0
		for refused+reset < opens-16 { // 1 MiB is 16 times the initial credit
			h, payload, err := link.ReadFrame(p)
			if err != nil {
				t.Fatal(err)
			}
			if h.Type != wire.TypeRefused && h.Type != wire.TypeReset {
				continue
			}
			if code, err := wire.ParseCode(payload); code != wire.CodeResources || err != nil {
				t.Errorf("%s: %s, %v", h.Type, code, err)
			}
			if h.Type == wire.TypeRefused {
				refused++
			} else {
				reset++
			}
		}
		if v.session.Flows() > limit || v.session.Queued() > 1<<20 {
			t.Errorf("%d flows, %d bytes queued", v.session.Flows(), v.session.Queued())
		}
		p.alive(t)
	})
}

// A flood of control messages arrives whole and in order.
func TestControlFlood(t *testing.T) {
	attacks(t, nil, func(t *testing.T, v *victim) {
		const count = 3000
		var flood []byte
		for i := range count {
			payload, err := message.Encode(message.Message{Listeners: &message.Listeners{Dropped: i}})
			if err != nil {
				t.Fatal(err)
			}
			flood = wire.AppendFrame(flood, wire.TypeControl, 0, payload)
		}
		v.peer.send(t, flood)
		for i := range count {
			if m := wait.For(t, patience, "a message", v.heard); m.Listeners == nil || m.Listeners.Dropped != i {
				t.Fatalf("message %d is %+v", i, m)
			}
		}
	})
}
