// Package carry hands what a forward accepts to a link session: connections
// one by one, datagrams by association.
//
// Theory of operation. A TCP connection becomes a stream of the session at
// once; the session does the rest. A UDP socket serves many clients, so each
// client address (and each local address it was reached at) becomes an
// association: a datagram flow of the session. Replies leave through the
// forward's own socket, from the address that the client had sent to.
//
// All associations of a link share one table (package association). Nothing that
// the network or a peer does ends a socket: only its owner closes it.
package carry
