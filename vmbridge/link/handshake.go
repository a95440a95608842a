package link

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// ErrWrongKey means that the guest could not prove that it holds our key.
var ErrWrongKey = errors.New("the guest does not hold this link's key")

// greeting is what the host says about the connection that it opens.
type greeting struct {
	session      [16]byte
	index, count int
	epoch        uint64 // 0 for the first
}

// greet is the host's side of the handshake. patience is for the guest's first
// word, 0 for what everything after it takes at most.
func greet(ctx context.Context, nc net.Conn, key []byte, g greeting, patience time.Duration) (wire.Welcome, wire.Challenge, error) {
	var welcome wire.Welcome
	var challenge wire.Challenge
	patience = cmp.Or(patience, handshakeTimeout)
	release := deadline(ctx, nc, patience)
	defer func() { release() }()

	hello := wire.Hello{
		MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, Auth: authOf(key), Session: g.session,
		Index: uint8(g.index), Count: uint8(g.count), Epoch: g.epoch, InitialCredit: initialCredit,
	}
	_, _ = rand.Read(hello.Nonce[:]) // never fails
	helloFrame := wire.AppendHello(nil, hello)
	if _, err := nc.Write(helloFrame); err != nil {
		return welcome, challenge, fmt.Errorf("%w: send hello: %w", ErrNotAPeer, err)
	}
	challengePayload, err := expect(nc, wire.TypeChallenge, patience)
	if err != nil {
		return welcome, challenge, err
	}
	release()
	release = deadline(ctx, nc, handshakeTimeout)
	if challenge, err = wire.ParseChallenge(challengePayload); err != nil {
		return welcome, challenge, err
	}
	if challenge.Version < wire.MinVersion || challenge.Version > wire.MaxVersion {
		return welcome, challenge, fmt.Errorf("%w: version %d was not offered", wire.ErrMalformed, challenge.Version)
	}
	if challenge.Auth != hello.Auth {
		return welcome, challenge, fmt.Errorf("%w: the guest wants another kind of proof", ErrWrongKey)
	}
	helloPayload := helloFrame[wire.HeaderSize:]
	if _, err := nc.Write(wire.AppendProof(nil, wire.HostProof(key, helloPayload, challengePayload))); err != nil {
		return welcome, challenge, fmt.Errorf("send proof: %w", err)
	}
	payload, err := expect(nc, wire.TypeWelcome, handshakeTimeout)
	if err != nil {
		return welcome, challenge, err
	}
	if welcome, err = wire.ParseWelcome(payload); err != nil {
		return welcome, challenge, err
	}
	if !welcome.Proof.Equal(wire.GuestProof(key, helloPayload, challengePayload, welcome.Epoch)) {
		return welcome, challenge, ErrWrongKey
	}
	return welcome, challenge, nil
}

// admit is the guest's side of the handshake, up to the host's proof. The
// caller answers with a welcome or a goodbye.
func admit(ctx context.Context, nc net.Conn, key []byte) (wire.Hello, func(epoch uint64, name string) []byte, error) {
	defer deadline(ctx, nc, handshakeTimeout)()
	helloPayload, err := expect(nc, wire.TypeHello, handshakeTimeout)
	if err != nil {
		return wire.Hello{}, nil, err
	}
	hello, err := wire.ParseHello(helloPayload)
	if err != nil {
		return hello, nil, err
	}
	refuse := func(code wire.Code, reason string) error {
		_, _ = nc.Write(wire.AppendGoodbye(nil, wire.Goodbye{Code: code, Reason: reason}))
		return fmt.Errorf("refused a host: %s: %s", code, reason)
	}
	version := min(hello.MaxVersion, wire.MaxVersion)
	if version < max(hello.MinVersion, wire.MinVersion) {
		return hello, nil, refuse(wire.CodeWrongVersion, incompatible(hello))
	}
	if want := authOf(key); hello.Auth != want {
		if want == wire.AuthKey {
			return hello, nil, refuse(wire.CodeNoKey, "this agent was started with a link key")
		}
		return hello, nil, refuse(wire.CodeWrongKey, "this agent was started without a link key")
	}
	challenge := wire.Challenge{Version: version, Auth: hello.Auth, InitialCredit: initialCredit}
	_, _ = rand.Read(challenge.Nonce[:])
	challengeFrame := wire.AppendChallenge(nil, challenge)
	if _, err := nc.Write(challengeFrame); err != nil {
		return hello, nil, fmt.Errorf("send challenge: %w", err)
	}
	payload, err := expect(nc, wire.TypeProof, handshakeTimeout)
	if err != nil {
		return hello, nil, err
	}
	proof, err := wire.ParseProof(payload)
	if err != nil {
		return hello, nil, err
	}
	challengePayload := challengeFrame[wire.HeaderSize:]
	if !proof.Equal(wire.HostProof(key, helloPayload, challengePayload)) {
		return hello, nil, refuse(wire.CodeWrongKey, "the host's key is not the key of this guest")
	}
	return hello, func(epoch uint64, name string) []byte {
		return wire.AppendWelcome(nil, wire.Welcome{
			Proof: wire.GuestProof(key, helloPayload, challengePayload, epoch), Epoch: epoch, Name: name,
		})
	}, nil
}

// incompatible names both ranges of versions, and the end that is older.
func incompatible(h wire.Hello) string {
	fix := "upgrade the agent, with vmbridge guest install"
	if h.MaxVersion < wire.MinVersion {
		fix = "upgrade vmbridge on the host"
	}
	return fmt.Sprintf("the host speaks %s of the protocol, the agent %s: %s",
		versions(h.MinVersion, h.MaxVersion), versions(wire.MinVersion, wire.MaxVersion), fix)
}

func versions(least, most uint16) string {
	if least == most {
		return fmt.Sprintf("version %d", least)
	}
	return fmt.Sprintf("versions %d to %d", least, most)
}

func authOf(key []byte) wire.Auth {
	if key == nil {
		return wire.AuthNone
	}
	return wire.AuthKey
}

// deadline bounds what is done with nc until the returned function is called.
func deadline(ctx context.Context, nc net.Conn, limit time.Duration) func() {
	_ = nc.SetDeadline(time.Now().Add(limit))
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			_ = nc.SetDeadline(time.Time{})
		}
	}
}

// expect reads exactly one frame, of type t, and gives its payload. limit is what
// the connection's deadline leaves it.
func expect(nc net.Conn, t wire.Type, limit time.Duration) ([]byte, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(nc, head[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("%w: no %s within %s", ErrNotAPeer, t, limit)
		}
		return nil, fmt.Errorf("%w: waiting for %s: %w", ErrNotAPeer, t, err)
	}
	h, err := wire.ParseHeader(head[:])
	if err != nil {
		return nil, fmt.Errorf("%w: waiting for %s: %w", ErrNotAPeer, t, err)
	}
	if h.Type != t && h.Type != wire.TypeGoodbye {
		return nil, fmt.Errorf("%w: %s instead of %s", ErrNotAPeer, h.Type, t)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(nc, payload); err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrNotAPeer, t, err)
	}
	if h.Type == wire.TypeGoodbye {
		g, err := wire.ParseGoodbye(payload)
		if err != nil {
			return nil, err
		}
		return nil, &GoodbyeError{Code: g.Code, Reason: message.Clean(g.Reason, maxReason)}
	}
	return payload, nil
}
