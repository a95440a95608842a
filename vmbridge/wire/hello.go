package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Versions that this package speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Auth says how the two ends prove who they are.
type Auth uint8

// The ways to prove it.
const (
	AuthNone Auth = 0 // stdio: who holds the pipe is the peer
	AuthKey  Auth = 1 // both hold the link key
)

// magic tells a vmbridge peer from anything else that answers on a socket.
const magic = "vmbridge"

// Hello is the first frame on every connection, from the host. Its layout is
// the same in every version; later versions append to it.
type Hello struct {
	MinVersion, MaxVersion uint16
	Features               uint64 // bits that the host knows; none are defined yet
	Auth                   Auth
	Nonce                  [32]byte
	Session                [16]byte // random, one per link session
	Index, Count           uint8    // this connection, of so many in the session
	Epoch                  uint64   // 0 on the first connection, then what its welcome said
	InitialCredit          uint32   // bytes that the guest may send on a new flow
}

// AppendHello appends a hello frame.
func AppendHello(b []byte, h Hello) []byte {
	start := len(b)
	b = appendHeader(b, TypeHello, 0, 0)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, h.MinVersion)
	b = binary.BigEndian.AppendUint16(b, h.MaxVersion)
	b = binary.BigEndian.AppendUint64(b, h.Features)
	b = append(b, uint8(h.Auth))
	b = append(b, h.Nonce[:]...)
	b = append(b, h.Session[:]...)
	b = append(b, h.Index, h.Count)
	b = binary.BigEndian.AppendUint64(b, h.Epoch)
	b = binary.BigEndian.AppendUint32(b, h.InitialCredit)
	PutHeader(b[start:], Header{TypeHello, len(b) - start - HeaderSize, 0})
	return b
}

const helloSize = 8 + 2 + 2 + 8 + 1 + 32 + 16 + 1 + 1 + 8 + 4

// ParseHello reads the payload of a hello frame. Bytes beyond what version 1
// defines are ignored.
func ParseHello(p []byte) (Hello, error) {
	if len(p) < helloSize {
		return Hello{}, fmt.Errorf("%w: hello of %d bytes", ErrMalformed, len(p))
	}
	if string(p[:8]) != magic {
		return Hello{}, fmt.Errorf("%w: the peer does not speak this protocol", ErrMalformed)
	}
	var h Hello
	h.MinVersion = binary.BigEndian.Uint16(p[8:])
	h.MaxVersion = binary.BigEndian.Uint16(p[10:])
	h.Features = binary.BigEndian.Uint64(p[12:])
	h.Auth = Auth(p[20])
	copy(h.Nonce[:], p[21:])
	copy(h.Session[:], p[53:])
	h.Index, h.Count = p[69], p[70]
	h.Epoch = binary.BigEndian.Uint64(p[71:])
	h.InitialCredit = binary.BigEndian.Uint32(p[79:])
	if h.Count == 0 || h.Index >= h.Count {
		return Hello{}, fmt.Errorf("%w: connection %d of %d", ErrMalformed, h.Index, h.Count)
	}
	return h, nil
}

// Challenge is the guest's answer to a hello.
type Challenge struct {
	Version       uint16 // the highest that both speak
	Features      uint64 // the bits of the hello that the guest knows too
	Auth          Auth
	Nonce         [32]byte
	InitialCredit uint32 // bytes that the host may send on a new flow
}

// AppendChallenge appends a challenge frame.
func AppendChallenge(b []byte, c Challenge) []byte {
	b = appendHeader(b, TypeChallenge, 0, challengeSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, c.Version)
	b = binary.BigEndian.AppendUint64(b, c.Features)
	b = append(b, uint8(c.Auth))
	b = append(b, c.Nonce[:]...)
	return binary.BigEndian.AppendUint32(b, c.InitialCredit)
}

const challengeSize = 8 + 2 + 8 + 1 + 32 + 4

// ParseChallenge reads the payload of a challenge frame.
func ParseChallenge(p []byte) (Challenge, error) {
	if len(p) < challengeSize {
		return Challenge{}, fmt.Errorf("%w: challenge of %d bytes", ErrMalformed, len(p))
	}
	if string(p[:8]) != magic {
		return Challenge{}, fmt.Errorf("%w: the peer does not speak this protocol", ErrMalformed)
	}
	var c Challenge
	c.Version = binary.BigEndian.Uint16(p[8:])
	c.Features = binary.BigEndian.Uint64(p[10:])
	c.Auth = Auth(p[18])
	copy(c.Nonce[:], p[19:])
	c.InitialCredit = binary.BigEndian.Uint32(p[51:])
	return c, nil
}

// Proof is the keyed hash by which a side shows that it holds the link key.
type Proof [sha256.Size]byte

// AppendProof appends a proof frame.
func AppendProof(b []byte, p Proof) []byte { return AppendFrame(b, TypeProof, 0, p[:]) }

// ParseProof reads the payload of a proof frame.
func ParseProof(p []byte) (Proof, error) {
	if len(p) != len(Proof{}) {
		return Proof{}, fmt.Errorf("%w: proof of %d bytes", ErrMalformed, len(p))
	}
	return Proof(p), nil
}

// Welcome is the guest's last word of the handshake: the connection is part of
// the session.
type Welcome struct {
	Proof Proof
	Epoch uint64 // random, one per start of the agent
	Name  string // the guest's host name; not cleaned: see message.Clean
}

const maxName = 255

// AppendWelcome appends a welcome frame; a long name is cut.
func AppendWelcome(b []byte, w Welcome) []byte {
	name := w.Name[:min(len(w.Name), maxName)]
	b = appendHeader(b, TypeWelcome, 0, len(w.Proof)+8+len(name))
	b = append(b, w.Proof[:]...)
	b = binary.BigEndian.AppendUint64(b, w.Epoch)
	return append(b, name...)
}

// ParseWelcome reads the payload of a welcome frame.
func ParseWelcome(p []byte) (Welcome, error) {
	const fixed = len(Proof{}) + 8
	if len(p) < fixed || len(p) > fixed+maxName {
		return Welcome{}, fmt.Errorf("%w: welcome of %d bytes", ErrMalformed, len(p))
	}
	return Welcome{
		Proof: Proof(p[:32]),
		Epoch: binary.BigEndian.Uint64(p[32:]),
		Name:  string(p[fixed:]),
	}, nil
}

// HostProof is what the host sends: a keyed hash over its role and the exact
// hello and challenge payloads, so over version range, nonces, session and
// place in it.
func HostProof(key, hello, challenge []byte) Proof {
	return prove(key, "vmbridge host", hello, challenge, nil)
}

// GuestProof is what the guest sends. It covers its epoch as well.
func GuestProof(key, hello, challenge []byte, epoch uint64) Proof {
	return prove(key, "vmbridge guest", hello, challenge, binary.BigEndian.AppendUint64(nil, epoch))
}

// Equal compares in constant time.
func (p Proof) Equal(q Proof) bool { return hmac.Equal(p[:], q[:]) }

// prove hashes its parts with their lengths, so that no two lists of parts
// give the same input.
func prove(key []byte, role string, parts ...[]byte) Proof {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(role))
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write(part)
	}
	return Proof(mac.Sum(nil))
}
