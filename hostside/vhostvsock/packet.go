package vhostvsock

import "encoding/binary"

// The packets of virtio-vsock (virtio 1.2, section 5.10.6): a header of 44
// bytes, little-endian, and for opRW a payload.
const (
	headerBytes = 44

	hostCID    = 2
	typeStream = 1
)

type op uint16

const (
	opRequest       op = 1
	opResponse      op = 2
	opReset         op = 3
	opShutdown      op = 4
	opRW            op = 5
	opCreditUpdate  op = 6
	opCreditRequest op = 7
)

// Flags of opShutdown. They are hints of the sender about itself.
const (
	shutReceive = 1 // will not receive any more
	shutSend    = 2 // will not send any more
	shutBoth    = shutReceive | shutSend
)

type header struct {
	sourceCID, destinationCID   uint64
	sourcePort, destinationPort uint32
	length                      uint32
	kind                        uint16
	op                          op
	flags                       uint32
	allocated                   uint32 // the sender's receive buffer, in bytes
	forwarded                   uint32 // bytes that its reader has taken, wraps
}

func (h *header) encode(b *[headerBytes]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.sourceCID)
	le.PutUint64(b[8:], h.destinationCID)
	le.PutUint32(b[16:], h.sourcePort)
	le.PutUint32(b[20:], h.destinationPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], uint16(h.op))
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.allocated)
	le.PutUint32(b[40:], h.forwarded)
}

func (h *header) decode(b *[headerBytes]byte) {
	le := binary.LittleEndian
	h.sourceCID = le.Uint64(b[0:])
	h.destinationCID = le.Uint64(b[8:])
	h.sourcePort = le.Uint32(b[16:])
	h.destinationPort = le.Uint32(b[20:])
	h.length = le.Uint32(b[24:])
	h.kind = le.Uint16(b[28:])
	h.op = op(le.Uint16(b[30:]))
	h.flags = le.Uint32(b[32:])
	h.allocated = le.Uint32(b[36:])
	h.forwarded = le.Uint32(b[40:])
}
