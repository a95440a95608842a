package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every decoding error. A link that sees one ends,
// because what follows on that connection cannot be trusted.
var ErrMalformed = errors.New("malformed frame")

// Type says what a frame is. Types with the Optional bit that a receiver does
// not know are skipped; others that it does not know end the link.
type Type uint8

// Optional marks the types that a receiver may skip.
const Optional Type = 0x80

// The frame types of protocol version 1.
const (
	TypeHello     Type = 0x01 // host: version range, nonce, session
	TypeChallenge Type = 0x02 // guest: version, nonce
	TypeProof     Type = 0x03 // host: proof that it holds the key
	TypeWelcome   Type = 0x04 // guest: its proof, epoch and name
	TypeGoodbye   Type = 0x05 // either: the link ends, with code and reason

	TypeControl Type = 0x10 // a JSON control message (package message)
	TypePing    Type = 0x11
	TypePong    Type = 0x12

	TypeOpen     Type = 0x20 // a new flow
	TypeOpened   Type = 0x21 // the other end of the flow is connected
	TypeRefused  Type = 0x22 // it could not be connected, with a code
	TypeData     Type = 0x23 // bytes of a TCP flow
	TypeDatagram Type = 0x24 // one UDP datagram, whole
	TypeFin      Type = 0x25 // no more data in this direction
	TypeReset    Type = 0x26 // the flow ends now, with a code
	TypeCredit   Type = 0x27 // the receiver takes so many bytes more
)

// Sizes in bytes.
const (
	HeaderSize = 8

	MaxData     = 256 << 10 // payload of a data frame
	MaxDatagram = 65535     // payload of a datagram frame
	MaxControl  = 4 << 20   // payload of a control frame
	maxSmall    = 2 << 10   // payload of every other frame
)

var names = [256]string{
	TypeHello: "hello", TypeChallenge: "challenge", TypeProof: "proof", TypeWelcome: "welcome",
	TypeGoodbye: "goodbye", TypeControl: "control", TypePing: "ping", TypePong: "pong",
	TypeOpen: "open", TypeOpened: "opened", TypeRefused: "refused", TypeData: "data",
	TypeDatagram: "datagram", TypeFin: "fin", TypeReset: "reset", TypeCredit: "credit",
}

// String gives the name of the specification, or the number.
func (t Type) String() string {
	if t.Known() {
		return names[t]
	}
	return fmt.Sprintf("type 0x%02x", uint8(t))
}

// Known tells whether version 1 defines t.
func (t Type) Known() bool { return names[t] != "" }

// MaxPayload is the largest payload that a frame of type t may have. Unknown
// types get the bound of a data frame: they must be skipped, not stored.
func (t Type) MaxPayload() int {
	switch t {
	case TypeData:
		return MaxData
	case TypeDatagram:
		return MaxDatagram
	case TypeControl:
		return MaxControl
	}
	if !t.Known() {
		return MaxData
	}
	return maxSmall
}

// Header starts every frame: type (1 byte), payload length (3 bytes), flow (4
// bytes), in network byte order. Flow 0 is the link itself.
type Header struct {
	Type   Type
	Length int
	Flow   uint32
}

// PutHeader writes h to the first HeaderSize bytes of b.
func PutHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint32(b, uint32(h.Type)<<24|uint32(h.Length))
	binary.BigEndian.PutUint32(b[4:], h.Flow)
}

// ParseHeader reads the first HeaderSize bytes of b and checks the length
// against the type's limit.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: header of %d bytes", ErrMalformed, len(b))
	}
	first := binary.BigEndian.Uint32(b)
	h := Header{Type: Type(first >> 24), Length: int(first & 0xffffff), Flow: binary.BigEndian.Uint32(b[4:])}
	if h.Length > h.Type.MaxPayload() {
		return Header{}, fmt.Errorf("%w: %s frame of %d bytes, at most %d are allowed",
			ErrMalformed, h.Type, h.Length, h.Type.MaxPayload())
	}
	if !h.Type.Known() && h.Type&Optional == 0 {
		return Header{}, fmt.Errorf("%w: unknown mandatory frame %s", ErrMalformed, h.Type)
	}
	return h, nil
}

// AppendFrame appends a whole frame to b. The payload must respect the type's
// limit.
func AppendFrame(b []byte, t Type, flow uint32, payload []byte) []byte {
	b = appendHeader(b, t, flow, len(payload))
	return append(b, payload...)
}

func appendHeader(b []byte, t Type, flow uint32, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(t)<<24|uint32(length))
	return binary.BigEndian.AppendUint32(b, flow)
}
