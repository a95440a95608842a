// Package ready tells whoever started the agent that it serves.
//
// Theory of operation. A process that has been started is not yet one that
// works: an agent without AF_VSOCK, or with another agent in its place, ends a
// moment later, and its service manager starts it again, for ever. So the agent
// says when it listens, in systemd's way: READY=1 as a datagram to the unix socket
// that the environment variable NOTIFY_SOCKET names. OpenRC knows nothing of it;
// its script sets the variable all the same, and package install listens there
// while it starts the service.
package ready
