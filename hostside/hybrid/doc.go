// Package hybrid serves the hybrid vsock protocol, which Firecracker made and
// cloud-hypervisor has taken over: who connects to a unix socket says which port
// of the guest is meant, and from then on the socket is a stream to that port.
//
// Theory of operation. A client begins with one line of at most 64 bytes:
//
//	CONNECT PORT   is answered by OK PORT, the host's end, once the guest has
//	               accepted. What follows belongs to the stream, either way.
//	STATUS         is answered by one line of JSON and the end. It is ours.
//
// Anything that fails is answered by ERR and the reason, and the end; clients of
// other makes look for OK alone. How the guest is reached is the caller's: a Dial
// that gives a Stream.
//
// A stream is relayed by two goroutines, one for each direction, with a buffer
// each. An end travels as an end (CloseWrite), each direction alone, and so does
// a reader that reads no more. A client's reset resets the stream. The other way
// a unix socket has no reset: the client's socket is closed at once, which gives
// ECONNRESET where something of the client's was left unread, and else an end and
// a broken pipe. A side that stops reading holds up its own connection alone.
//
// A client that has gone altogether looks at first like one that only ended its
// direction. The system tells the difference on Linux (hangup_linux.go), and then
// the guest's answer is waited for no longer.
package hybrid
