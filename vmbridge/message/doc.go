// Package message defines the control messages that agent and daemon exchange
// over a link, and checks every one that arrives.
//
// Theory of operation. A control message is one JSON object in one control
// frame (package wire bounds its size). The agent reports, the host decides:
// nothing in a message makes the host bind, dial or write anything by itself.
// Decode is the only way in, and it cleans every string: a peer's text is cut
// to its limit, and what is not printable becomes U+FFFD, so that it may be
// shown in a log, a terminal or a page as it is.
//
// Listeners travel as a level, not as edges: the first message of a session
// has Reset set and the snapshot may span several messages (More set on all
// but the last); what follows are differences to it. A new session starts over.
package message
