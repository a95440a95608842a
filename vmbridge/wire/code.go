package wire

import (
	"encoding/binary"
	"fmt"
)

// Code says why a flow was refused or reset, or why a link ended. Codes of
// flows stand for what the operating system would have told a local client.
type Code uint16

// Codes of flows.
const (
	CodeRefused          Code = 1 // nobody listens (ECONNREFUSED)
	CodeTimedOut         Code = 2 // no answer (ETIMEDOUT)
	CodeHostUnreachable  Code = 3 // EHOSTUNREACH
	CodeNetUnreachable   Code = 4 // ENETUNREACH
	CodeConnectionReset  Code = 5 // the socket was reset (ECONNRESET)
	CodeResources        Code = 6 // out of descriptors, memory or flows
	CodeDenied           Code = 7 // a rule forbids it
	CodeAddressNotUsable Code = 8 // EADDRNOTAVAIL
	CodeIdle             Code = 9 // an association saw no traffic for its idle time
	CodeOther            Code = 10
)

// Codes of links.
const (
	CodeShutdown      Code = 100 // the sender exits or was told to disconnect
	CodeWrongKey      Code = 101 // the proof does not match our key
	CodeWrongVersion  Code = 102 // the version ranges do not meet
	CodeStaleSession  Code = 103 // the session or epoch is not known here (any more)
	CodeProtocolError Code = 104 // a frame that the specification forbids
	CodeTooManyLinks  Code = 105 // the agent serves as many hosts as it may
	CodeNoKey         Code = 106 // this transport needs a key, and the peer offers none
)

var codeNames = map[Code]string{
	CodeRefused: "connection refused", CodeTimedOut: "timed out", CodeHostUnreachable: "host unreachable",
	CodeNetUnreachable: "network unreachable", CodeConnectionReset: "connection reset",
	CodeResources: "out of resources", CodeDenied: "denied", CodeAddressNotUsable: "address not available",
	CodeIdle: "idle", CodeOther: "failed",
	CodeShutdown: "shut down", CodeWrongKey: "wrong key", CodeWrongVersion: "wrong version",
	CodeStaleSession: "stale session", CodeProtocolError: "protocol error",
	CodeTooManyLinks: "too many links", CodeNoKey: "a key is needed",
}

// String names the code.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// Goodbye ends a link.
type Goodbye struct {
	Code   Code
	Reason string // not cleaned: see message.Clean
}

const maxReason = 1024

// AppendGoodbye appends a goodbye frame; a long reason is cut.
func AppendGoodbye(b []byte, g Goodbye) []byte {
	reason := g.Reason[:min(len(g.Reason), maxReason)]
	b = appendHeader(b, TypeGoodbye, 0, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, uint16(g.Code))
	return append(b, reason...)
}

// ParseGoodbye reads the payload of a goodbye frame.
func ParseGoodbye(p []byte) (Goodbye, error) {
	if len(p) < 2 || len(p) > 2+maxReason {
		return Goodbye{}, fmt.Errorf("%w: goodbye of %d bytes", ErrMalformed, len(p))
	}
	return Goodbye{Code: Code(binary.BigEndian.Uint16(p)), Reason: string(p[2:])}, nil
}
