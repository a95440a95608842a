// Package bind opens the host's sockets so that nobody shares them: a port is
// either ours alone or refused with the kind of reason.
//
// Theory of operation. What "exclusive" takes differs per system, and so does
// what a refusal means, so the differences are plain values (type rules, chosen
// by operating system and tested on any) and a few unexported functions per
// system (socket options, errno to kind, a probe). The rest is common:
//
//   - Linux. TCP listeners have SO_REUSEADDR (Go's default), because connections
//     in TIME_WAIT would otherwise block the port that we have just closed. It
//     shares nothing: bind refuses a port that somebody listens on, wildcard and
//     specific addresses included. UDP sockets have no SO_REUSEADDR, with which
//     two sockets could be bound to one port and the younger would take every
//     datagram.
//   - Windows. SO_REUSEADDR would steal ports from any process, so Go sets
//     nothing and we set SO_EXCLUSIVEADDRUSE, without which others could steal
//     ours. It has a price: a port cannot be bound again while a connection that
//     was accepted on it lives. Lingers tells the caller, who keeps the listening
//     socket and resets newcomers until then.
//   - macOS. With SO_REUSEADDR a specific address can be bound beside somebody's
//     wildcard and silently takes its loopback traffic (and the reverse), so TCP
//     binds are preceded by a probe of the other. Ports below 1024 are open to
//     ordinary users, but only on the wildcard address: for a loopback bind the
//     wildcard is bound and the caller gets a filter that admits loopback peers.
//
// Everywhere: never SO_REUSEPORT, and IPv6 sockets are V6ONLY, so IPv4 and IPv6
// are separate sockets and fail separately. Errors are *Error and match one of
// the kinds (ErrInUse, ErrPermission, ErrNoAddress, ErrDescriptors) or none.
package bind
