// Package orders is how a test has something done inside a virtual machine,
// whatever becomes of the bridge there: it runs programs, and it lends sockets.
//
// Theory of operation. The program tests/vm/guest serves orders on AF_VSOCK, one
// connection for each. The first frame from the test is the order, as JSON: run a
// program, connect a socket, or accept one connection. What follows is frames in
// both directions until the connection ends: input, output and the exit status of
// the program; or what goes into the socket and comes out of it, with its end and
// its error. So a test can half-close a socket in the machine, reset it, and see
// how the other end did so, and a frame of a UDP socket is one datagram.
//
// A program that still runs when its connection ends is killed, with its process
// group.
package orders
