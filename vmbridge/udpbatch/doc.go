// Package udpbatch reads and writes one UDP socket in batches: many datagrams
// per system call, no allocation per datagram, no memory held while waiting.
//
// Theory of operation. ReadBatch waits in Go's netpoller and borrows memory
// from a Pool only once the socket is readable: ten thousand idle sockets cost
// what their Conns cost. The memory has room for 64 datagrams of the largest
// size, so that none is ever cut, but it is a mapping of which only the pages
// that datagrams touch become resident. One recvmmsg fills it; the caller gets
// all datagrams in one call and typically hands them to WriteBatch of another
// Conn as they are.
//
// WriteBatch never waits, since UDP is dropped rather than delayed. Runs of
// datagrams that differ in nothing but their payload, at most the last one
// shorter, become one message with UDP_SEGMENT: the kernel carries the run
// through its stack once and cuts it at the receiving socket or at the device.
// When the kernel refuses (a device without checksums, datagrams longer than
// the MTU) the run is sent one by one, and the Conn remembers.
//
// Errors that the network can cause are about one datagram or one peer. They go
// to Options.SoftError and end nothing; only closing the socket does.
//
// Systems other than Linux have no such calls (macOS has private ones): there a
// batch is one datagram, and WriteBatch may wait for the system's buffer.
//
// Figures. 2026-11, two cores of an EPYC shared with other work, Linux 6.18,
// one sender of 200-byte datagrams at full speed, one relay, one receiver, each
// a process, on the loopback of a network namespace; datagrams per second at
// the receiver, medians of three:
//
//	ReadBatch and WriteBatch                        88,000
//	the same with SetReadBuffer(1 MiB)              96,000
//	the same without UDP_SEGMENT                    56,000
//	UDP_GRO on the reading socket                   85,000
//	pasta (passt 2023)                              47,000
//	no relay: sender to receiver                   135,000
//
// So segmented sends pay (5.5 microseconds of processor time per datagram
// against 6.8), UDP_GRO does not: nothing on loopback merges what plain senders
// send, and splitting what a device has merged would cost a second pass. A
// larger receive buffer pays, because what is lost is lost while the relay waits
// for a processor; the caller chooses it, since it knows how many sockets there
// are.
package udpbatch
