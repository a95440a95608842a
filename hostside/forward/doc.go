// Package forward turns the listeners of guests into sockets of the host.
//
// Theory of operation. The guest reports what listens; the policy says what
// follows from it (plan: a pure function from listener to host addresses); the
// Engine makes it so. Nothing is driven by edges: every change, a report, the
// toggle, a policy, a link that goes, a timer, only recomputes what is wanted
// and settles the difference with what is open.
//
// What can get in each other's way shares protocol, port and address family,
// and is a group: its claims (wanted host addresses) and the sockets it holds.
// Settling a group is the whole arbitration, in one place: sockets that nobody
// claims close, claims are ranked, each in turn is covered by a socket that its
// link holds already, blocked by another link's, or opened. A wildcard covers
// the specific addresses of its link. Groups are independent, so TCP never
// blocks UDP nor IPv4 IPv6.
//
// Everything is under one lock, and nothing slow is done under it: opening
// happens inside the call that reports the listener (about 60 microseconds a
// socket), owners of conflicting ports are looked up by a goroutine of their
// own, and another one retries what failed and reports what happened. Each
// socket has one goroutine, which takes no lock: TCP accepts and hands
// connections to the link's Carrier, UDP is served by the Carrier.
// Where sockets are bound is also kept under a lock of its own, for those who only
// ask whether an address leads back to this engine (Holds).
//
// What is said about a TCP forward, in listings, events and logs, waits until it
// has existed for 50 ms, so that sockets which merely reserve a port stay
// unmentioned. Opening it does not wait.
package forward
