// Package redirect turns calls to localhost that nobody in the guest answers
// into calls to the host address.
//
// Theory of operation. Ten tiny eBPF programs, in four groups, at the root
// cgroup:
//
//   - connect4/6 and sendmsg4/6 see the destination before the kernel does.
//     When it is loopback (127.0.0.1, ::1, 0.0.0.0, ::, and the IPv4-mapped
//     forms of the first and third) and no socket of the guest serves the port,
//     they write the host address in its place. Guest first, host second: the
//     programs occupy no port, and a server that appears later wins at once.
//   - recvmsg4/6 (recvfrom), getpeername4/6 and getsockname4/6 write loopback
//     back, so that programs see what they asked for. glibc ranks the addresses
//     of localhost by what getsockname says.
//
// Nothing is remembered between calls: whether a socket serves the port is asked
// of the kernel's own tables every time. So nothing can be stale, and as no link
// is pinned, everything is as if we had never been there once the process ends,
// however it ends.
//
// The look-up asks both loopback families. A server on 127.0.0.1 alone also
// keeps a client of ::1 at home, which gets its refusal there and falls back:
// otherwise it would talk to another server than the guest's. For TCP the source
// port is 0, so that only listeners count: a connection in TIME_WAIT would hide
// one. For UDP the source is that of the message, with the socket's own port.
// With another, a connected UDP socket would not be found, and a server's answer
// to it would go to the host; the agent itself hands datagrams to guest servers
// through such sockets.
//
// Left alone are: the agent, since its own calls to loopback are meant for the
// guest; other network namespaces; sockets bound to a device; sockets bound to
// ::1, since such a source cannot leave the loopback device (127.0.0.1 can, with
// route_localnet on the device that leads to the host address); other protocols
// than TCP (with MPTCP) and UDP; the rest of 127/8; and port 0. A family that has
// no host address is left alone too. Most calls of a machine have another
// destination and end after the first comparison.
//
// A datagram to an IPv4-mapped address on an IPv6 socket passes sendmsg4, not
// sendmsg6: the kernel turns it into one of IPv4 first. Its answer passes
// recvmsg6 all the same. A connection of MPTCP passes connect as its first
// subflow, which is TCP, while its names are asked for as protocol 262.
//
// What cannot be had: sockets that listen bound to a device (SO_BINDTODEVICE)
// are not seen by the look-up; ports that only a packet filter serves (DNAT of
// loopback) are not sockets; what a server of the guest answers to a UDP client that
// has gone is a datagram to the host, like any other; and the addresses in IP_RECVERR, IP_PKTINFO and
// /proc/net are the real ones.
//
// Needed of the kernel: the hooks connect and sendmsg are of Linux 4.17 and
// 4.18, recvmsg 5.2, getpeername and getsockname 5.8; cgroup links 5.7; the
// helpers bpf_sk_lookup_tcp, bpf_sk_lookup_udp and bpf_sk_release in these
// programs 5.0, the socket of the context 5.3, bpf_get_netns_cookie and
// bpf_get_current_pid_tgid 5.7. So Linux 5.8 should have all of
// it; run were 6.1 and 6.18.
package redirect
