// Package forward turns the listeners of guests into sockets of the host.
//
// Theory of operation. The guest reports what listens; the policy says what
// follows from it (plan: a pure function from listener to host addresses); the
// Engine makes it so. Nothing is driven by edges: every change, a report, the
// toggle, a policy, a link that goes, a timer, only recomputes what is wanted
// and settles the difference with what is open.
//
// The policy's lists leave ports and processes out; its rules come before them and
// may lead a port to another address or port of this machine. A rule can ask for
// names of a listener's owner, which the guest may report later than the listener:
// containers by some milliseconds, as their engine has to be asked. Meanwhile a
// listener whose fate depends on the name stays closed, with the rule as the reason.
// One whose owner never becomes known (a container of an engine that the agent
// cannot ask, a socket of the guest's kernel) stays closed for good: no wait could
// tell it from one that is about to be named, and a rule that keeps a port closed
// must not depend on how fast an engine answers. A rule before that one, which asks
// for the port alone, opens it.
//
// What can get in each other's way shares protocol, port of this machine and
// address family, and is a group: its claims (wanted host addresses) and the
// sockets it holds. Settling a group is the whole arbitration, in one place: sockets
// that nobody claims close, claims are ranked, each in turn is covered by a socket
// that is open for the same port of the same guest, blocked by one of another link
// or another port, or opened. A wildcard covers the specific addresses of its port.
// Groups are independent, so TCP never blocks UDP nor IPv4 IPv6.
//
// A listener that closes leaves its connections to themselves: its port closes,
// they live on. What the policy or the toggle closes ends with its flows. Each
// claim counts its own (link.Stats), which are retired with it: from then on
// nothing is carried for them, and the Carrier cuts what is.
//
// A port that the VM's own product forwards (package product) is carried: it stays in
// the same retries as a conflict, so that it opens when the product lets go, but is
// none, and the log mentions each product once. Who has it is looked up again now and
// then, so that another owner is not hidden by the first.
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
// unmentioned. Opening it does not wait. One whose rule waits for a name is
// unmentioned for a second.
package forward
