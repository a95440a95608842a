// Package listeners keeps track of the sockets that wait for peers in the
// agent's own network namespace, and reports them with their owners.
//
// Theory of operation. The tracker is driven by levels, not edges. Something
// wakes it (package wake where eBPF can be had, else a timer and the kernel's
// notifications of destroyed sockets), it asks the kernel for all listeners
// (package sockdiag), compares with what it knew, and publishes the
// difference. A wake-up that is lost, or that comes before the kernel shows the
// socket, costs time and never truth: after a wake-up the kernel is asked again
// 20 and 200 ms later, and every few seconds in any case. A dump that fails
// changes nothing.
//
//	wake-ups --> plan --> dump --> sockets by cookie --> keys --> table --> watches
//	             (when)            (what is it, whose)            (differences)
//
// One goroutine does all of this; the plan bounds the share of time that dumps
// may take, so that a storm of events, of ours or of other namespaces, costs a
// quarter of a core at most.
//
// What is reported. Every TCP socket in LISTEN, at once. A UDP socket that is
// not connected, was bound on purpose, and has lived 50 ms: resolvers bind a
// random port for one query. Once reported it stays when it is connected, as
// netcat's is to its first client. "On purpose" is what the bind hook saw (a port was
// asked for), or a port outside of ip_local_port_range, from which the kernel
// picks the ports of clients; the latter is all there is for sockets older than
// the tracker, and without eBPF. Clients (Ephemeral) are left out unless
// Config.Ephemeral asks for them: a busy guest has thousands, which come and go
// without anybody's interest. The agent's own sockets are never reported.
//
// Sockets with the same protocol, address and port are one listener, which stays
// until the last of them is gone. IPv4-mapped addresses are IPv4, and :: without
// IPV6_V6ONLY is marked as dual-stack.
//
// A listener's process is known in its first report in all but pathological
// cases (the wake-up remembers who called listen or bind; else the holders of
// the socket are looked up), because the host decides by it. The name of a
// container may follow as an update of the same listener.
package listeners
