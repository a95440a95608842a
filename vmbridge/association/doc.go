// Package association keeps what one side remembers of UDP: which datagram flow
// of a link belongs to which client.
//
// Theory of operation. UDP has no connections, so both sides decide for
// themselves when a client begins and ends. The first datagram of a key (whatever
// names a client to the caller) opens a flow. All associations of a table are
// ordered by last use. When the table or the link is full the least recently used
// one goes; one that has been idle too long goes as well, and the same client
// simply gets a new one with its next datagram.
//
// Datagrams move an association in the order; replies, which come on other
// goroutines and in bulk, only note the time, and eviction and expiry look at
// that when it matters.
package association
