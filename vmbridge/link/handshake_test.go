package link_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// G5: who does not hold the key, or speaks another version, is refused, and the
// host can say why.
func TestRefusals(t *testing.T) {
	otherKey := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		name         string
		host, guest  []byte
		reason, what string
	}{
		{"wrong key", otherKey, testKey, "wrong key", "the host's key is not the key of this guest"},
		{"no key at the host", nil, testKey, "a key is needed", "started with a link key"},
		{"no key at the guest", testKey, nil, "wrong key", "started without a link key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newMemoryListener()
			guest, host := newEnd(), newEnd()
			startServer(t, l, link.Config{Key: c.guest, Handler: guest})
			states, _ := startConnector(t, 2, l.dial, link.Config{Key: c.host, Handler: host})
			if s := wait.For(t, patience, "a state", states); s != (link.State{Phase: link.Connecting}) {
				t.Errorf("first %+v", s)
			}
			s := wait.For(t, patience, "a refusal", states)
			if s.Phase != link.Refused || !strings.Contains(s.Reason, c.reason) || !strings.Contains(s.Reason, c.what) {
				t.Errorf("%+v", s)
			}
			if len(guest.up)+len(host.up) > 0 {
				t.Error("a session came up")
			}
		})
	}
}

// G5: an impostor of the guest learns nothing that lets it pass.
func TestImpostors(t *testing.T) {
	for _, c := range []struct {
		name  string
		phase link.Phase
		is    string
		play  func(nc net.Conn)
	}{
		{"does not know the key", link.Refused, "does not hold this link's key", func(nc net.Conn) {
			if _, err := expectFrame(nc, wire.TypeHello); err == nil {
				_, _ = nc.Write(wire.AppendChallenge(nil, challenge()))
				_, _ = expectFrame(nc, wire.TypeProof)
				_, _ = nc.Write(wire.AppendWelcome(nil, wire.Welcome{Epoch: 1}))
			}
		}},
		{"sends the host's proof back", link.Refused, "does not hold this link's key", func(nc net.Conn) {
			if _, err := expectFrame(nc, wire.TypeHello); err == nil {
				_, _ = nc.Write(wire.AppendChallenge(nil, challenge()))
				proof, _ := expectFrame(nc, wire.TypeProof)
				if len(proof) == 32 {
					_, _ = nc.Write(wire.AppendWelcome(nil, wire.Welcome{Proof: wire.Proof(proof), Epoch: 1}))
				}
			}
		}},
		{"wants no proof", link.Refused, "another kind of proof", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, wire.Challenge{Version: 1}))
		}},
		{"chooses a version that was not offered", link.Down, "version 9 was not offered", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, wire.Challenge{Version: 9, Auth: wire.AuthKey}))
		}},
		{"says goodbye", link.Refused, "wrong version: guest speaks 7", func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendGoodbye(nil, wire.Goodbye{Code: wire.CodeWrongVersion, Reason: "guest speaks 7"}))
		}},
		{"is a web server", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n"))
		}},
		{"speaks first", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			go func() { _, _ = expectFrame(nc, wire.TypeHello) }()
			_, _ = nc.Write([]byte("220 mail.example ESMTP\r\n"))
		}},
		{"hangs up", link.Down, link.ErrNotAPeer.Error(), func(net.Conn) {}},
		{"hangs up in the middle", link.Down, link.ErrNotAPeer.Error(), func(nc net.Conn) {
			_, _ = expectFrame(nc, wire.TypeHello)
			_, _ = nc.Write(wire.AppendChallenge(nil, challenge())[:20])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newMemoryListener()
			var work sync.WaitGroup
			work.Go(func() {
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					_ = nc.SetDeadline(time.Now().Add(patience))
					c.play(nc)
					_ = nc.Close()
				}
			})
			host := newEnd()
			states, stop := startConnector(t, 1, l.dial, link.Config{Key: testKey, Handler: host})
			awaitPhase(t, states, link.Connecting)
			if s := wait.For(t, patience, "a state", states); s.Phase != c.phase || !strings.Contains(s.Reason, c.is) {
				t.Errorf("%+v", s)
			}
			stop()
			_ = l.Close()
			work.Wait()
			if len(host.up) > 0 {
				t.Error("a session came up")
			}
		})
	}
}

// G5: strangers at the guest are refused with the reason, and a real host gets
// in all the same.
func TestStrangers(t *testing.T) {
	l := newMemoryListener()
	guest := newEnd()
	startServer(t, l, link.Config{Key: testKey, Name: "guest", Handler: guest})
	dial := func() net.Conn {
		nc, err := l.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience))
		return nc
	}
	refusedAs := func(what string, code wire.Code, h wire.Hello, key []byte, says ...string) {
		t.Helper()
		_, err := greetAs(dial(), h, key)
		var g *link.GoodbyeError
		if !errors.As(err, &g) || g.Code != code {
			t.Errorf("%s: %v", what, err)
			return
		}
		for _, text := range says {
			if !strings.Contains(g.Reason, text) {
				t.Errorf("%s: %q, want %q in it", what, g.Reason, text)
			}
		}
	}
	with := func(change func(*wire.Hello)) wire.Hello { h := hello(); change(&h); return h }

	refusedAs("a wrong key", wire.CodeWrongKey, hello(), []byte("not the key"))
	refusedAs("a later version", wire.CodeWrongVersion, with(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 2, 9 }), testKey,
		"versions 2 to 9", "version 1:", "upgrade the agent")
	refusedAs("an earlier version", wire.CodeWrongVersion, with(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 0, 0 }), testKey,
		"version 0", "version 1:", "upgrade vmbridge on the host")
	refusedAs("an impossible range", wire.CodeWrongVersion, with(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 9, 1 }), testKey)
	refusedAs("no proof", wire.CodeNoKey, with(func(h *wire.Hello) { h.Auth = wire.AuthNone }), testKey)
	refusedAs("an unknown proof", wire.CodeNoKey, with(func(h *wire.Hello) { h.Auth = 9 }), testKey)
	refusedAs("too many connections", wire.CodeProtocolError, with(func(h *wire.Hello) { h.Count = 17 }), testKey)
	second := func(h *wire.Hello) { h.Index, h.Count = 1, 2 }
	refusedAs("an unknown epoch", wire.CodeStaleSession, with(func(h *wire.Hello) { second(h); h.Epoch = 5 }), testKey)

	nc := dial()
	welcome, err := greetAs(nc, with(func(h *wire.Hello) { h.Count = 2 }), testKey)
	if err != nil || welcome.Name != "guest" || welcome.Epoch == 0 {
		t.Fatalf("%+v, %v", welcome, err)
	}
	session := wait.For(t, patience, "a session", guest.up)
	refusedAs("the same session", wire.CodeStaleSession, with(func(h *wire.Hello) { h.Count = 2 }), testKey)
	refusedAs("another count", wire.CodeStaleSession,
		with(func(h *wire.Hello) { h.Index, h.Count, h.Epoch = 1, 3, welcome.Epoch }), testKey)
	refusedAs("another session", wire.CodeStaleSession,
		with(func(h *wire.Hello) { second(h); h.Epoch, h.Session = welcome.Epoch, [16]byte{9} }), testKey)
	if _, err := greetAs(dial(), with(func(h *wire.Hello) { second(h); h.Epoch = welcome.Epoch }), testKey); err != nil {
		t.Errorf("the second connection: %v", err)
	}
	// A third one has no place, and does no harm.
	wait.Until(t, patience, "the second to join", session.Complete)
	extra := dial()
	if _, err := greetAs(extra, with(func(h *wire.Hello) { second(h); h.Epoch = welcome.Epoch }), testKey); err == nil {
		if _, _, err := link.ReadFrame(extra); err == nil {
			t.Error("a third connection of two says something")
		}
	}
	_ = nc.Close()
	wait.For(t, patience, "the end", guest.down)

	for n := range 300 { // every piece of a hello, garbage, and frames out of place
		nc := dial()
		h := wire.AppendHello(nil, hello())
		switch {
		case n < len(h):
			_, _ = nc.Write(h[:n])
		case n < 200:
			garbage := make([]byte, 100)
			_, _ = rand.Read(garbage)
			_, _ = nc.Write(garbage)
		default:
			_, _ = nc.Write(wire.AppendFrame(nil, wire.Type(n), 0, make([]byte, 10)))
		}
		_ = nc.Close()
	}
	wait.Until(t, patience, "a real host to get in", func() bool {
		// The strangers may still hold all places for handshakes.
		nc := dial()
		_, err := greetAs(nc, hello(), testKey)
		return err == nil
	})
	wait.For(t, patience, "its session", guest.up)
}
