package wake

import "time"

// Kind says what an Event is about.
type Kind uint32

// The kinds of events.
const (
	// TCPListen and TCPClose: a TCP socket of some network namespace entered or
	// left LISTEN. LISTEN is announced just before the socket can be seen in a
	// dump.
	TCPListen Kind = 1
	TCPClose  Kind = 2
	// UDPBind and UDPClose: a UDP socket was bound on purpose, or a socket so
	// bound is being closed.
	UDPBind  Kind = 3
	UDPClose Kind = 4
	// Overflow: events were lost; anything may have happened.
	Overflow Kind = 5
)

// Event is one wake-up.
type Event struct {
	Kind Kind
	// Port of the socket in TCP events; 0 when listen is still to choose one.
	Port uint16
	// Thread is the calling thread of TCP events, in the initial pid namespace.
	Thread int
	// Cookie names the socket of UDP events.
	Cookie uint64
}

// Call describes the system call that made a socket wait: listen or bind.
type Call struct {
	// Time is when, on CLOCK_MONOTONIC.
	Time time.Duration
	// PID is the process, in the initial pid namespace.
	PID int
	// Port is the port that bind was asked for: 0 for any.
	Port uint16
}
