// Package hostreach is the guest's end of host reach: a guest process that
// connects to localhost, where nothing in the guest serves the port, reaches the
// loopback of the host.
//
// Theory of operation. Three parts make it, each a package: redirect turns such
// a destination into the host address, tun makes the kernel send what is for
// the host address to a device, and netstack ends TCP and UDP behind that
// device. This package starts them when the first host asks for host reach, and
// stops them when no host wants it any more.
//
// What arrives becomes a flow of the host's session. A TCP connection is held
// before its handshake until the host has answered: what the host's dial met is
// what the client's connect() meets, so no port looks open that is not. UDP has
// no handshake; each client and port has an association (package association),
// and a refusal of the host becomes the port unreachable that the guest's own
// kernel would have sent.
//
// A host that is away refuses, at once: the parts keep running while a link is
// down, so that nothing but the answer changes when it comes back. Nothing here
// outlives the process. Without it, localhost is the guest's alone.
//
// Of several agents in a guest, one has the device. The others wait for it: the one
// that has it may be that of a host that is gone, and not know yet.
package hostreach
