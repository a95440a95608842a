// Package wake tells, through eBPF, that some socket began or ceased to wait
// for peers, and remembers who did it.
//
// Theory of operation. Events only wake; what listens is decided by a dump
// (package sockdiag). Three groups of tiny programs, written in Go with
// cilium/ebpf's assembler, so that nothing has to be compiled, shipped as a
// binary, or looked up in the kernel's type information:
//
//   - the tracepoint sock:inet_sock_set_state, when a TCP socket enters or
//     leaves LISTEN;
//   - the cgroup hooks bind4/bind6 and post_bind4/post_bind6 at the root
//     cgroup, when a UDP socket is bound to a port that its program asked for
//     (bind sees the port asked for, post_bind that it succeeded; the kernel's
//     own choice of a port for a client fires neither);
//   - the cgroup hook sock_release, for exactly the UDP sockets remembered by
//     the former (it runs for every socket and sees no port).
//
// An event in the ring buffer is sixteen bytes, enough to tell whether a dump is
// worth it. What is known beyond that sits in two maps that are asked by key when
// a dump shows a new socket (Listener, Bound). So nothing is lost when the ring
// is full: a reader that is that far behind is told that everything may have
// changed.
//
// UDP programs ignore other network namespaces where the kernel has namespace
// cookies (SO_NETNS_COOKIE, Linux 5.14). The tracepoint cannot tell namespaces
// apart, so its events carry the thread and the port for the reader to judge.
//
// Programs of other users of the same hooks go on working: the programs are
// attached through links, which allow several, and always say "go ahead". No
// link is pinned: all of it ends with the process. Everything used exists
// since Linux 5.10. Each half (TCP, UDP) is available or comes with the reason
// why not.
package wake
