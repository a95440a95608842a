// Package wire encodes and decodes the frames of the link protocol, version 1.
// PROTOCOL.md, one folder up, is the specification; this package is its code.
//
// Theory of operation. A frame is an 8-byte header and a payload. Encoders
// append to a caller's slice, decoders borrow from it: nothing is copied and
// nothing is kept. Every decoder checks every length before it reads, and
// reports what is wrong through an error that wraps ErrMalformed. The package
// holds no state and does no I/O; package link decides what a frame means.
package wire
