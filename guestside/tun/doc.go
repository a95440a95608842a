// Package tun makes the host address: an address of the guest that only this
// machine's own programs can use, and behind which a network stack in the
// agent listens (package netstack).
//
// Theory of operation. Open makes a TUN device and chooses a pair of
// neighbouring addresses (they differ in the last bit) per family: the guest's
// own, which the device has, and the host's, to which a route leads. The route
// is in a table of our own, which two rules guard:
//
//	900: from all to HOST iif lo lookup 732
//	901: from all to HOST prohibit
//
// "iif lo" is the kernel's word for what this machine sends by itself. So a
// container on a bridge whose packets are forwarded gets "prohibited", even when
// masquerading would have given them the machine's address, because routing
// comes before that. Strict reverse path filters are content: their look-up
// counts as the machine's own, too.
//
// A rule without a priority (what wg-quick adds, for one) goes before all
// others but "local", and so before ours, and a full tunnel's rule takes the host
// address along. Some network managers remove rules that they do not know. So a
// goroutine waits for the kernel's notifications about rules, routes and devices. They only
// wake: whether the host address leads to the device is asked of the kernel, and if
// it does not, the rules are made anew, in front; a device that was set down is set
// up again. (A fixed place in the very front is no solution: at priority 0 and 1 the
// kernel stops counting downwards for the others, which turns the order of their
// rules around.)
//
// The device has no link-local address, asks for no routers and does no
// multicast: nothing is sent on it but what programs send to the host
// address. Its IPv4 address has link scope, and its IPv6 address is deprecated, so
// that neither is chosen as the source of anything else. route_localnet lets a
// socket that is bound to 127.0.0.1 send through it.
//
// Addresses come from 169.254.0.0/16 and fd00::/8. The first choice is always
// the same; the next pair is taken while one overlaps an address or a route in any
// table. A route for all of 169.254.0.0/16 (zeroconf adds one) or for even more
// does not count, it leaves no choice otherwise. What it leads to is kept but
// for the one address. 169.254.73.0/24 (WSL) and 169.254.169.0/24 (metadata services
// of clouds) are never used.
//
// The device, its addresses and its routes end with the process, however it
// ends. The rules do not; they carry a protocol number of our own, and the next
// Open removes them, unless the table still has a route, because then its owner
// lives.
package tun
