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
// The toggle opens and closes the engine and cuts the flows; links stay up
// either way, so that turning it on takes effect at once.
package daemon
