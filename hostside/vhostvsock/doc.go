// Package vhostvsock is a vhost-user-vsock device: it gives the guest of a plain
// QEMU an AF_VSOCK device, without a kernel module and without root.
//
// Theory of operation. QEMU connects to our unix socket, hands over the guest's
// memory and two eventfds per ring as descriptors (session, handle, message), and
// steps aside: the guest's driver and we then move packets through two rings in
// that memory (ring, chain, memory). A packet is a header and, for data, a
// payload (packet); the connection it belongs to is found by its two ports.
//
//	Conn.Write -> out -> queue -> transmit -> ring 0 -> guest
//	Conn.Read  <- in  <-----------  receive <- ring 1 <- guest
//
// One goroutine fills ring 0, another one empties ring 1 (traffic), and neither
// ever waits for a connection. What a connection has to tell the guest is a few
// flags and the bytes of Write (emit); connections with something to tell take
// turns of one packet. So a guest that does not read costs the host
// no memory beyond what Write has taken, a connection that nobody reads stops by
// its credit alone, and many small writes become one packet while the ring is
// full. What the guest sent is copied once, from its memory to the queue of the
// connection, which holds windowBytes at most.
//
// Credit. Each side tells how many bytes its buffer has and how many its reader
// has taken, in every packet (credit). New Linux kernels count more than bytes:
// see packetOverhead. A connection that may not send asks for credit, again and
// again with growing pauses.
//
// Ends. CloseWrite ends one direction. Close sends the rest, then ends both; the
// guest's kernel answers with a reset when its program has read everything. A
// guest that has ended both is answered with a reset at once. Any other reset is
// syscall.ECONNRESET, or ECONNREFUSED for Dial; Abort sends one. What Linux in
// the guest makes of a reset is an end like any other for whoever reads.
//
// The guest is not trusted, and can change its memory at any time. Every index,
// address and length is copied before it is checked, checked against the table of
// memory on every use, and every walk has a bound. A ring with nonsense in it is
// not used any more until the driver sets it up again. A file of memory that
// becomes shorter is a fault that ends the session, not the program.
//
// Comings and goings. The device outlives QEMU: the next one connects to the same
// socket. A session that ends, and a driver that begins with new rings, as after
// a reboot, reset all connections. A virtual machine that is paused (QEMU's stop
// and cont) stops its rings too, and goes on where they were: its connections
// stay, and only Dial fails meanwhile.
//
// Locks, in the order in which they are taken: a ring's, a connection's, and then
// either the device's (its tables) or the queue's. While a ring's is held
// nothing waits. Whoever unmaps memory or stops a ring holds the ring's.
//
// Systems. QEMU passes eventfds for kicks and calls on Linux, and pipes elsewhere
// (since 7.0); its memory is a memfd on Linux and one of shm_open on macOS (since
// 9.1). Both are taken everywhere. The tests run on Linux, with either.
package vhostvsock
