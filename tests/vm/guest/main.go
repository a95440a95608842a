// Command guest is what the tests of the vsock device run inside a virtual
// machine: servers on AF_VSOCK that echo, swallow and produce bytes, and one that
// takes orders.
package main
