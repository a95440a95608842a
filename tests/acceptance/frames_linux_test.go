package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// attack is what a peer does with a connection.
type attack struct {
	name string
	do   func(net.Conn) error
}

// sends is an attack of these bytes.
func sends(name string, frames ...[]byte) attack {
	return attack{name, func(c net.Conn) error {
		_, err := c.Write(bytes.Join(frames, nil))
		return err
	}}
}

// strangers is what somebody does who does not hold the key, or does not know
// the protocol. The other side ends the connection by itself.
func strangers() []attack {
	head := func(t wire.Type, length int) []byte {
		b := make([]byte, wire.HeaderSize)
		wire.PutHeader(b, wire.Header{Type: t, Length: length})
		return b
	}
	return []attack{
		sends("text", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
		sends("zeros", make([]byte, 4096)),
		sends("noise", traffic.Noise(4096)),
		sends("unknown mandatory frame", head(0x7f, 0)),
		sends("oversized hello", head(wire.TypeHello, 1<<20)),
		sends("oversized challenge", head(wire.TypeChallenge, 1<<20)),
		sends("short hello", wire.AppendFrame(nil, wire.TypeHello, 0, []byte("vmbridge"))),
		sends("short challenge", wire.AppendFrame(nil, wire.TypeChallenge, 0, []byte("vmbridge"))),
		sends("data first", wire.AppendFrame(nil, wire.TypeData, 1, traffic.Noise(1000))),
		sends("other version", wire.AppendChallenge(nil, wire.Challenge{Version: 77, Auth: wire.AuthKey})),
		sends("no key asked for", wire.AppendChallenge(nil, wire.Challenge{Version: 1, Auth: wire.AuthNone})),
		sends("wrong proof", wire.AppendChallenge(nil, wire.Challenge{Version: 1, Auth: wire.AuthKey}),
			wire.AppendWelcome(nil, wire.Welcome{Proof: wire.Proof{1}, Epoch: 1})),
		{"truncated", func(c net.Conn) error {
			_, err := c.Write(head(wire.TypeHello, 80)[:5])
			return errors.Join(err, c.(*net.UnixConn).CloseWrite())
		}},
		{"silence", func(net.Conn) error { return nil }},
	}
}

// peers is what a peer does that holds the key. first is the number of the first
// flow that it may open.
func peers(first uint32) []attack {
	frame := func(t wire.Type, flow uint32, payload []byte) []byte { return wire.AppendFrame(nil, t, flow, payload) }
	head := func(t wire.Type, flow uint32, length int) []byte {
		b := make([]byte, wire.HeaderSize)
		wire.PutHeader(b, wire.Header{Type: t, Flow: flow, Length: length})
		return b
	}
	many := &bytes.Buffer{}
	for range message.MaxListenersPerMessage + 1 {
		fmt.Fprintf(many, `,{"protocol":"tcp","address":"127.0.0.1","port":1}`)
	}
	return []attack{
		sends("unknown mandatory frame", head(0x7f, 0, 0)),
		sends("oversized data", head(wire.TypeData, first, wire.MaxData+1)),
		sends("oversized control", head(wire.TypeControl, 0, wire.MaxControl+1)),
		sends("hello again", wire.AppendHello(nil, wire.Hello{MinVersion: 1, MaxVersion: 1, Count: 1})),
		sends("no JSON", frame(wire.TypeControl, 0, []byte("{"))),
		sends("no listener", frame(wire.TypeControl, 0, []byte(`{"listeners":{"add":[{"protocol":"icmp","address":"127.0.0.1","port":1}]}}`))),
		sends("port 0", frame(wire.TypeControl, 0, []byte(`{"listeners":{"add":[{"protocol":"tcp","address":"127.0.0.1","port":0}]}}`))),
		sends("too many listeners", frame(wire.TypeControl, 0, fmt.Appendf(nil, `{"listeners":{"add":[%s]}}`, many.Bytes()[1:]))),
		sends("malformed open", frame(wire.TypeOpen, first, []byte{6, 99})),
		sends("the other side's flow", openFrame(first+1)),
		{"truncated", func(c net.Conn) error {
			_, err := c.Write(head(wire.TypeControl, 0, 1000))
			return errors.Join(err, c.(*net.UnixConn).CloseWrite())
		}},
		sends("goodbye", wire.AppendGoodbye(nil, wire.Goodbye{Code: 9999, Reason: "\x1b[31m\n"})),
	}
}

// openFrame opens a TCP flow to a port where nobody listens.
func openFrame(flow uint32) []byte {
	nobody := netip.MustParseAddrPort("127.0.0.1:9")
	return wire.AppendOpen(nil, flow, wire.Open{Network: wire.TCP, Source: nobody, Destination: nobody})
}

// harmless is what may come, and is skipped.
func harmless() []byte {
	return bytes.Join([][]byte{
		wire.AppendFrame(nil, 0x7f|wire.Optional, 7, traffic.Noise(1000)),
		wire.AppendFrame(nil, wire.TypeData, 12345, traffic.Noise(1000)), // a flow that has just ended
		wire.AppendFrame(nil, wire.TypeDatagram, 12345, traffic.Noise(1000)),
		wire.AppendFrame(nil, wire.TypeFin, 12345, nil),
		wire.AppendCode(nil, wire.TypeReset, 12345, wire.CodeDenied),
		wire.AppendCredit(nil, 12345, 1<<31),
		wire.AppendFrame(nil, wire.TypeControl, 0, []byte(`{"weather":{"sunny":true}}`)),
		bytes.Repeat(wire.AppendFrame(nil, wire.TypePing, 0, traffic.Noise(64)), 1000),
	}, nil)
}

// H2: malformed, truncated, oversized, out-of-order and flooding frames of a
// guest end at most the link: the daemon dials again, and serves the next guest.
func TestH2HostileGuest(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	l := b.listenAsAgent()
	b.startDaemon()
	must(t, l.SetDeadline(time.Now().Add(time.Minute)))
	for _, a := range strangers() {
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatalf("%s: the daemon does not dial again: %v", a.name, err)
		}
		ends(t, a, c)
	}
	// The first connection makes the session; the others are let in and left
	// alone.
	sessions := make(chan *net.UnixConn)
	go func() {
		defer close(sessions)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if index, err := b.welcome(c); err == nil && index == 0 {
				sessions <- c
			} else {
				go io.Copy(io.Discard, c)
			}
		}
	}()
	session := func(name string) *net.UnixConn {
		select {
		case c := <-sessions:
			return c
		case <-time.After(patience):
			t.Fatalf("%s: the daemon does not dial again", name)
			return nil
		}
	}
	for _, a := range peers(2) {
		ends(t, a, session(a.name))
	}
	c := session("harmless")
	_, err := c.Write(harmless())
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	must(t, expectPong(c))
	must(t, errors.Join(l.Close(), c.Close()))
	for c := range sessions {
		c.Close()
	}
	b.startAgent()
	b.awaitLink()
	_, name := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.view.port(name, control.PortOpen)
	b.reach("tcp", "127.0.0.1:7000")
}

// H2: the same from a host: it ends at most its link, and the agent goes on
// serving another.
func TestH2HostileHost(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{})
	_, name := b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.view.port(name, control.PortOpen)
	kept := b.connect("127.0.0.1:7000")
	must(t, exchange(kept, []byte("before\n")))
	connect := func() *net.UnixConn {
		c, err := net.Dial("unix", b.linkSocket())
		must(t, err)
		return c.(*net.UnixConn)
	}
	for _, a := range strangers() {
		ends(t, a, connect())
	}
	for i, a := range append(peers(1), sends("open twice", openFrame(1), openFrame(1))) {
		c := connect()
		must(t, b.greet(c, byte(i)))
		ends(t, a, c)
	}
	c := connect()
	must(t, b.greet(c, 255))
	_, err := c.Write(harmless())
	must(t, err)
	must(t, expectPong(c))
	must(t, c.Close())
	must(t, exchange(kept, []byte("after\n")))
	if !b.agent.running() {
		t.Error("the agent has ended")
	}
}

// ends carries out an attack and expects the other side to end the connection.
func ends(t *testing.T, a attack, c net.Conn) {
	t.Helper()
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	// A write may fail because the other side has had enough.
	_ = a.do(c)
	if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
		t.Errorf("%s: the connection is still there", a.name)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// expectPong reads frames until a pong comes.
func expectPong(c net.Conn) error {
	for {
		h, _, err := readFrame(c)
		if err != nil {
			return fmt.Errorf("no pong: %w", err)
		}
		if h.Type == wire.TypePong {
			return nil
		}
	}
}

func readFrame(c net.Conn) (wire.Header, []byte, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.ParseHeader(head[:])
	if err != nil {
		return h, nil, err
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(c, payload)
	return h, payload, err
}

// listenAsAgent takes the place of the agent.
func (b *bed) listenAsAgent() *net.UnixListener {
	b.t.Helper()
	l, err := net.Listen("unix", b.linkSocket())
	must(b.t, err)
	b.t.Cleanup(func() { l.Close() })
	return l.(*net.UnixListener)
}

// welcome is an agent's side of the handshake.
func (b *bed) welcome(c net.Conn) (index int, err error) {
	_, payload, err := readFrame(c)
	if err != nil {
		return 0, err
	}
	hello, err := wire.ParseHello(payload)
	if err != nil {
		return 0, err
	}
	challenge := wire.AppendChallenge(nil, wire.Challenge{Version: 1, Auth: wire.AuthKey, InitialCredit: 1 << 16})
	if _, err := c.Write(challenge); err != nil {
		return 0, err
	}
	if _, _, err := readFrame(c); err != nil { // the host's proof
		return 0, err
	}
	const epoch = 1
	_, err = c.Write(wire.AppendWelcome(nil, wire.Welcome{
		Proof: wire.GuestProof(b.key[:], payload, challenge[wire.HeaderSize:], epoch), Epoch: epoch, Name: "evil",
	}))
	return int(hello.Index), err
}

// greet is a host's side of the handshake, for a session of one connection.
func (b *bed) greet(c net.Conn, session byte) error {
	hello := wire.AppendHello(nil, wire.Hello{MinVersion: 1, MaxVersion: 1, Auth: wire.AuthKey,
		Session: [16]byte{session, 1}, Count: 1, InitialCredit: 1 << 16})
	if _, err := c.Write(hello); err != nil {
		return err
	}
	_, challenge, err := readFrame(c)
	if err != nil {
		return err
	}
	if _, err := c.Write(wire.AppendProof(nil, wire.HostProof(b.key[:], hello[wire.HeaderSize:], challenge))); err != nil {
		return err
	}
	h, _, err := readFrame(c)
	if err == nil && h.Type != wire.TypeWelcome {
		err = fmt.Errorf("%s instead of a welcome", h.Type)
	}
	return err
}
