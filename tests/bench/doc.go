// Command bench measures vmbridge against its alternatives and prints one
// table.
//
// Theory of operation. A subject is one way for a client in a "host" network
// namespace to reach a server in a "guest" network namespace: nothing at all
// (client and server share a namespace), bare relays, a general-purpose mux,
// pasta, vmbridge. Each subject gets a bed: two namespaces of its own, the
// subject's processes, one client worker and one server worker. Client, server
// and relays are separate processes (this binary started again under a hidden
// command), because goroutines of one Go scheduler hand work to each other in a
// way that processes cannot.
//
// All beds stand at the same time. A measure runs on one bed after the other,
// and the repeats go round all beds, so that a slow minute of the machine hits
// every subject alike; the table shows medians. The workers serve net/rpc on
// their standard input and output: this process only directs, and sleeps while
// something is measured.
//
// Namespaces have no names: file descriptors of this process hold them, and
// every child dies with the thread that started it (PR_SET_PDEATHSIG). However
// this process ends, even by SIGKILL, nothing stays behind but its directory
// in the temporary directory.
//
// What is the same for all: 127.0.0.1 at both ends, plain TCP (Go listeners
// would otherwise open MPTCP sockets), the congestion control of the beds (a
// root namespace with BBR halves the throughput of loopback), default socket
// buffers, and blocking sockets without Go's poller in the clients and servers
// of everything that counts microseconds.
package main
