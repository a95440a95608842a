// Package sockdiag asks the Linux kernel which sockets wait for peers in a
// network namespace: TCP sockets in LISTEN and unconnected UDP sockets.
//
// Theory of operation. A Conn is one NETLINK_SOCK_DIAG socket; it belongs to
// the network namespace of the thread that opened it, for good. Dump sends one
// inet_diag request per address family with a state mask, so that the kernel
// leaves out connections, and appends what comes back to the caller's slice:
// in the steady state nothing is allocated. A dump is all or nothing: when any
// part of it fails, or the kernel says that the table changed under it, the
// caller gets an error and must leave what it knew as it was.
//
// A dump that took several reads is still not a snapshot: the kernel resumes
// at a position within a hash chain, so a socket may be skipped when another
// one of its chain went away in between. Result.Chunks lets a caller confirm
// an absence by a second dump.
//
// MPTCP listeners are not asked for by their own protocol: each has a TCP
// subflow in LISTEN with the same address, inode and cgroup, which the TCP
// dump shows (a test holds this assumption about the kernel).
//
// Destroyed subscribes to the kernel's notifications about sockets that went
// away. It is the only kind of event that sock_diag has.
//
// Decode is plain code and builds everywhere; the sockets are Linux only.
package sockdiag
