// Package netstack answers at the host address: it is the other end of the TUN
// device (package tun), a gVisor network stack inside the agent.
//
// Theory of operation. One goroutine reads packets from the device. gVisor
// reassembles them, answers ICMP echo, and does TCP; its own goroutines, one
// per processor, run the connections, and a connection's writer writes to the
// device itself. Packets for anybody but the host addresses are dropped.
//
// TCP: a SYN becomes a Request and is held. Only when the owner has asked the
// host is it accepted, refused with a reset, or ignored, so the client sees
// what it would see on the host. The number of requests is bounded in total and
// for each port. An accepted request is a Conn.
//
// UDP: no endpoint of gVisor is involved. Each datagram is passed on with its
// addresses, answers are written as packets, and so is the message that a port
// is unreachable: gVisor could send that only while it still has the packet.
//
// The packets are as large as they can be (MTU 65535), and each comes with a
// virtio_net_hdr, by which the kernel and gVisor leave out TCP's checksums. Nothing
// is between them that could damage a packet. The link is our own, since gVisor's
// (fdbased) does this for sockets only. Medians of five interleaved runs of 0.7 s
// on two shared cores, both ends in one process, as a ratio to plain loopback
// (30 Gbit/s; Reno in the kernel and in gVisor) in the same run:
//
//	                                   guest to host   host to guest
//	as it is                                1.05            0.51
//	gVisor verifies checksums               0.43            0.36
//	gVisor computes checksums               0.66            0.35
//	segmentation offload as well            1.02            0.45
//
// and in an earlier run on a busier machine (17 Gbit/s, BBR in the kernel):
//
//	as it is                                0.68            0.81
//	MTU 16384                               0.51            0.81
//	MTU 1500 with segmentation offload      0.51            0.83
//	MTU 1500                                0.11            0.76
//	fdbased, MTU 65535, no offload          0.46            0.60
//	fdbased, MTU 1500, no offload           0.08            0.04
//
// In that run Cubic in gVisor, no RACK, and buffers from a quarter to four times
// the size differed by no more than repeated runs do.
//
// Nothing runs and nothing is sent when no client does anything.
package netstack
