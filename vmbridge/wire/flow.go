package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Network is the transport protocol of a flow.
type Network uint8

// The networks of flows.
const (
	TCP Network = 6  // IANA protocol numbers
	UDP Network = 17 //
)

// Open asks the other side to connect a flow.
type Open struct {
	Network Network
	// Source is the client's address, for logs and listings only.
	Source netip.AddrPort
	// Destination is what the other side connects to.
	Destination netip.AddrPort
}

// AppendOpen appends an open frame for a flow.
func AppendOpen(b []byte, flow uint32, o Open) []byte {
	start := len(b)
	b = appendHeader(b, TypeOpen, flow, 0)
	b = append(b, uint8(o.Network))
	b = appendAddrPort(b, o.Source)
	b = appendAddrPort(b, o.Destination)
	PutHeader(b[start:], Header{TypeOpen, len(b) - start - HeaderSize, flow})
	return b
}

// ParseOpen reads the payload of an open frame.
func ParseOpen(p []byte) (Open, error) {
	if len(p) < 1 {
		return Open{}, fmt.Errorf("%w: empty open", ErrMalformed)
	}
	o := Open{Network: Network(p[0])}
	if o.Network != TCP && o.Network != UDP {
		return Open{}, fmt.Errorf("%w: open of network %d", ErrMalformed, p[0])
	}
	var err error
	rest := p[1:]
	if o.Source, rest, err = parseAddrPort(rest); err != nil {
		return Open{}, fmt.Errorf("open, source: %w", err)
	}
	if o.Destination, _, err = parseAddrPort(rest); err != nil {
		return Open{}, fmt.Errorf("open, destination: %w", err)
	}
	if o.Destination.Port() == 0 || !o.Destination.IsValid() {
		return Open{}, fmt.Errorf("%w: open without destination", ErrMalformed)
	}
	return o, nil
}

// An address is its length (0, 4 or 16), its bytes, and the port.
func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	raw := a.Addr().Unmap().WithZone("").AsSlice()
	b = append(b, uint8(len(raw)))
	b = append(b, raw...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func parseAddrPort(p []byte) (netip.AddrPort, []byte, error) {
	if len(p) < 1 || len(p) < 1+int(p[0])+2 {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: address cut short", ErrMalformed)
	}
	n := int(p[0])
	addr, ok := netip.AddrFromSlice(p[1 : 1+n])
	if (!ok && n != 0) || addr.Is4In6() {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: address of %d bytes", ErrMalformed, n)
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(p[1+n:])), p[3+n:], nil
}

// AppendCredit appends a credit frame: the flow's receiver takes n bytes more.
func AppendCredit(b []byte, flow uint32, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, TypeCredit, flow, 4), n)
}

// ParseCredit reads the payload of a credit frame.
func ParseCredit(p []byte) (uint32, error) {
	if len(p) != 4 {
		return 0, fmt.Errorf("%w: credit of %d bytes", ErrMalformed, len(p))
	}
	return binary.BigEndian.Uint32(p), nil
}

// AppendCode appends a refused or reset frame.
func AppendCode(b []byte, t Type, flow uint32, code Code) []byte {
	return binary.BigEndian.AppendUint16(appendHeader(b, t, flow, 2), uint16(code))
}

// ParseCode reads the payload of a refused or reset frame.
func ParseCode(p []byte) (Code, error) {
	if len(p) != 2 {
		return 0, fmt.Errorf("%w: code of %d bytes", ErrMalformed, len(p))
	}
	return Code(binary.BigEndian.Uint16(p)), nil
}
