// Package link carries flows and control messages between one guest and one
// host over a few transport connections. PROTOCOL.md, one folder up, says what
// crosses the wire; this package is both of its ends.
//
// Theory of operation. A host runs a Connector, a guest a Server. Each produces
// Sessions: K transport connections that have proved to each other that they
// hold the link key. A session lives as long as all of its connections; when
// one fails the session ends, its flows are reset, and the Connector makes a
// new one, which starts from nothing. There is no state to repair.
//
// A flow belongs to one connection, so its frames stay in order without
// further help. Per connection there are two goroutines. The reader parses
// frames and acts on them, and never blocks: payload goes straight to the
// flow's socket when the socket takes it at once, else into the flow's queue,
// which a goroutine that exists only while the queue does drains. Credit
// bounds that queue, so a peer that stops reading stops its own sender and
// nobody else. Frames are written by whoever has them while the connection is
// free; what comes while it is busy is queued and leaves with the next write.
// That is the only coalescing there is; no timer delays a byte. What the
// reader itself has to send (credit, answers) is tried without blocking, and
// handed to the second goroutine, the writer, when it does not fit: two
// readers that waited for each other would never wake.
//
// Each stream has one goroutine, which waits for its socket to become readable
// and holds no buffer while it waits: an idle connection costs a stack and a
// descriptor.
//
// UDP has no credit. Datagrams that meet a busy connection wait in a small
// queue with a deadline and are dropped beyond it, so they never delay TCP.
//
// Ownership: a Session's goroutines end with the session, and Close waits for
// them; a stream's goroutines end with the stream, which ends with the session.
package link
