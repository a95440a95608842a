// Package daemon is what runs on the host: it keeps a link to every guest,
// opens forwards for what the guests listen on, and answers the command line.
//
// Theory of operation. Each link has a Connector (package link) that keeps a
// session alive, a Carrier (package carry) that hands connections to whichever
// session there is, and a place in the one Engine (package forward) that
// decides which host addresses are open. What a guest reports flows one way:
// session, link, engine. When a session ends, its forwards stay for a second,
// so that a restart of the agent does not take every port away and put it
// back; then they close.
//
// A vhost-user link has its vsock device in a process of its own, which outlives
// the daemon (package vhostdevice): every dial looks for it first, and starts it
// where there is none.
//
// A docker link has its agent in a container of an engine (package dockeragent): a dial
// starts it. It is the one thing of a link that the toggle ends, since nobody who has
// turned host networking off expects a container of ours. While isolation blocks host
// networking it stays, as it may be what shows the isolation. What the engine itself
// tells of that counts as if the agent had.
//
// Whoever keeps the settings passes them in as plain values (Settings), at the
// start and whenever something has changed, and Apply does what differs. It closes
// before it opens, touches no flow that a change is not about, and waits for no
// link: links start and end in a goroutine of their own. The toggle opens and
// closes the engine and cuts the flows; other links stay up either way, so that
// turning it on takes effect at once.
//
// What agents tell of isolation goes the other way: Guests lists it, and
// GuestsChanged asks for a judgement, which comes back through Apply. Until the
// first word of a session's agent has been judged, nothing that its guest listens
// on is looked at, and the agent is not told that it may open flows.
package daemon
