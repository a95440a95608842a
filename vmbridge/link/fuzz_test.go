package link

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// scriptConn is a connection whose peer says a script, in pieces, and hears
// everything.
type scriptConn struct {
	script []byte
	cuts   []byte // sizes of the pieces, over and over; empty: one piece
	reads  int
	closed chan struct{}
	close  func()

	mu    sync.Mutex
	heard []byte
}

func newScriptConn(script, cuts []byte) *scriptConn {
	c := &scriptConn{script: script, cuts: cuts, closed: make(chan struct{})}
	c.close = sync.OnceFunc(func() { close(c.closed) })
	return c
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if len(c.script) == 0 {
		<-c.closed
		return 0, io.EOF
	}
	n := len(c.script)
	if len(c.cuts) > 0 {
		n = min(n, 1+int(c.cuts[c.reads%len(c.cuts)]))
		c.reads++
	}
	n = copy(p, c.script[:n])
	c.script = c.script[n:]
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, p...)
	return len(p), nil
}

func (c *scriptConn) Close() error                     { c.close(); return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return nil }
func (c *scriptConn) RemoteAddr() net.Addr             { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// recorder is a handler that notes what a script makes of a session.
type recorder struct {
	mu     sync.Mutex
	events []string
	flows  map[uint32]*bytes.Buffer
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Up(*Session)          {}
func (r *recorder) Down(*Session, error) {}
func (r *recorder) Message(_ *Session, m message.Message) {
	r.note("message %+v %+v", m.Agent, m.Listeners)
}

func (r *recorder) Stream(s *Stream) {
	r.note("stream %d to %s", s.id, s.Destination())
	r.mu.Lock()
	r.flows[s.id] = &bytes.Buffer{}
	r.mu.Unlock()
	conn := newScriptConn(nil, nil)
	s.Accept(recordedSocket{conn, r, s.id})
}

func (r *recorder) Datagrams(f *DatagramFlow) {
	r.note("datagrams %d to %s", f.id, f.Destination())
	f.Accept(func(payloads [][]byte) {
		for _, p := range payloads {
			r.note("datagram on %d: %x", f.id, p)
		}
	}, func(code wire.Code) { r.note("end of %d: %d", f.id, code) })
}

// recordedSocket takes everything and says nothing.
type recordedSocket struct {
	*scriptConn
	r  *recorder
	id uint32
}

func (s recordedSocket) Write(p []byte) (int, error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.r.flows[s.id].Write(p)
}

func (s recordedSocket) CloseWrite() error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	_, err := s.r.flows[s.id].WriteString("<fin>")
	return err
}

// play runs a script against a session, until nothing moves any more.
func play(t *testing.T, host bool, script, cuts []byte) (r *recorder, ended error) {
	r = &recorder{flows: map[uint32]*bytes.Buffer{}}
	var before []string
	synctest.Test(t, func(t *testing.T) {
		log := logrus.New()
		log.SetOutput(io.Discard)
		cfg := Config{Handler: r, Log: log}.withDefaults()
		s := newSession(cfg, host, [16]byte{}, 1, 1, "", initialCredit)
		conn := newScriptConn(slices.Clone(script), cuts)
		s.join(conn)
		done := make(chan error, 1)
		go func() { done <- s.run() }()
		synctest.Wait()
		select {
		case ended = <-done:
			before = slices.Clone(r.events)
		default:
			before = slices.Clone(r.events) // without the ends that Close brings
			s.Close(wire.CodeShutdown, "")
			<-done
		}
		if s.queued.Load() != 0 || s.growth.Load() != 0 || s.stats.Flows.Load() != 0 || len(s.conns[0].flows) != 0 {
			t.Errorf("%d bytes queued, %d of windows, %d flows after the end", s.queued.Load(), s.growth.Load(), s.stats.Flows.Load())
		}
		for heard := conn.heard; len(heard) > 0; {
			h, err := wire.ParseHeader(heard)
			if err != nil || len(heard) < wire.HeaderSize+h.Length {
				t.Fatalf("the session sent %x: %v", heard, err)
			}
			heard = heard[wire.HeaderSize+h.Length:]
		}
	})
	r.events = before
	return r, ended
}

// FuzzParser feeds a session arbitrary bytes, cut at arbitrary points. It must
// not panic, hang or leak, it must answer in whole frames, and where the cuts
// are must make no difference (H2).
func FuzzParser(f *testing.F) {
	to := netip.MustParseAddrPort("127.0.0.1:80")
	tcp := wire.AppendOpen(nil, 1, wire.Open{Network: wire.TCP, Source: to, Destination: to})
	udp := wire.AppendOpen(nil, 3, wire.Open{Network: wire.UDP, Destination: to})
	data := wire.AppendFrame(nil, wire.TypeData, 1, bytes.Repeat([]byte("0123456789abcdef"), 40))
	fin := wire.AppendFrame(nil, wire.TypeFin, 1, nil)
	reset := wire.AppendCode(nil, wire.TypeReset, 1, wire.CodeConnectionReset)
	datagrams := wire.AppendFrame(wire.AppendFrame(nil, wire.TypeDatagram, 3, []byte("one")), wire.TypeDatagram, 3, nil)
	control := wire.AppendFrame(nil, wire.TypeControl, 0,
		[]byte(`{"listeners":{"reset":true,"add":[{"protocol":"tcp","address":"::","port":80,"dual_stack":true,"owner":{}}]}}`))
	ping := wire.AppendFrame(nil, wire.TypePing, 0, []byte("ping"))
	optional := wire.AppendFrame(nil, 0xb0, 1, make([]byte, 300))
	goodbye := wire.AppendGoodbye(nil, wire.Goodbye{Code: wire.CodeShutdown, Reason: "bye"})
	credit := wire.AppendCredit(nil, 1, 1<<32-1)
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	for _, script := range [][]byte{
		join(tcp, data, fin), join(tcp, data, reset, data), join(udp, datagrams, ping, datagrams),
		join(control, ping, control, optional), join(tcp, credit, data, udp, datagrams, control, fin, ping, goodbye, data),
		join(tcp, tcp), join(fin, reset, data, credit, datagrams), join(tcp, fin, data), join(tcp, data[:20]),
		{0x30, 0, 0, 0, 0, 0, 0, 0}, {byte(wire.TypeControl), 0xff, 0xff, 0xff, 0, 0, 0, 0},
	} {
		for _, cuts := range [][]byte{{0}, {6, 0, 2}, {255, 1}} {
			f.Add(false, script, cuts)
		}
		f.Add(true, script, []byte{3})
	}
	f.Fuzz(func(t *testing.T, host bool, script, cuts []byte) {
		whole, wholeErr := play(t, host, script, nil)
		cut, cutErr := play(t, host, script, cuts)
		text := fmt.Sprint(wholeErr, cutErr)
		if strings.Contains(text, "more than it may") || strings.Contains(text, "open already") {
			return // how fast a socket takes bytes decides about credit, and about when a flow has ended
		}
		if fmt.Sprint(wholeErr) != fmt.Sprint(cutErr) {
			t.Errorf("in one piece: %v; cut: %v", wholeErr, cutErr)
		}
		// What ends the session also ends the flows, a little earlier or later.
		open := func(events []string) []string {
			if wholeErr == nil {
				return events
			}
			return slices.DeleteFunc(slices.Clone(events), func(e string) bool { return strings.HasPrefix(e, "end of ") })
		}
		if a, b := open(whole.events), open(cut.events); !slices.Equal(a, b) {
			t.Errorf("in one piece: %q; cut: %q", a, b)
		}
		for id, got := range whole.flows {
			a, b := got.String(), cut.flows[id].String()
			if wholeErr == nil && a != b || !strings.HasPrefix(a, b) && !strings.HasPrefix(b, a) {
				t.Errorf("flow %d in one piece: %d bytes; cut: %d", id, len(a), len(b))
			}
		}
	})
}
