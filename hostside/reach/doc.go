// Package reach is the host's end of host reach: a guest process that connects to
// localhost, where nothing in the guest serves the port, reaches this machine's
// loopback.
//
// Theory of operation. The guest opens flows of a link session with destination
// 127.0.0.1 or ::1 and a port. Reach dials that address, then the other loopback
// address where nobody listens on the first, and answers the flow with what the
// dial was told: refused stays refused, and no answer stays no answer. Nothing
// but these two addresses is ever dialled, so a server that is bound to an
// address of the network only is not reached, and no guest reaches the network
// through here.
//
// Before a dial, and once more when it has connected, Config.Own is asked whether
// a socket of this very process is what answers. Such an address counts as
// refused: a forward leads back into a guest, and the two would call each other
// until something runs out. So does a TCP connection that has met itself, which
// happens when the port that the kernel chooses for it is the one it dials.
//
// Dials are bounded per port, and per link in all, and what exceeds the bound
// waits within the dial's own time: a port that swallows requests holds up those
// who ask for it, and nobody else. All flows together take half of the process's
// descriptors at most: a guest cannot take those of the forwards.
//
// UDP has no answer to a connect. Every flow has a connected socket, on which the
// refusal of a datagram comes back as an error. What a flow has sent is kept until
// a reply comes, or for a second, and sent again to the other address when the
// first refuses it; when both do, or a service goes away later, the flow ends as
// refused and the guest tells its client. The next datagram makes a new flow.
//
// Windows tries a refused loopback address for 2 s unless told not to. Package net
// does that for TCP (SIO_TCP_INITIAL_RTO), and package udpbatch turns the refusals
// of UDP, which package net turns off, on again (SIO_UDP_CONNRESET).
//
// Everything that is known of flows and ports is under one lock, which is never
// held while anything is waited for or a flow is spoken to. A flow that is dialled
// has a goroutine, and one of UDP keeps it; TCP flows that are connected are the
// session's, and only the end of their socket is heard of here. Close waits for
// the goroutines.
package reach
