//go:build linux

package main

// Ports of the server worker. Each bed has namespaces of its own, so these are
// the same everywhere. They lie below the range for clients, where a UDP port
// counts as a service.
const (
	portSink    = 7001 // TCP: reads and counts
	portSource  = 7002 // TCP: writes as fast as it can
	portEcho    = 7003 // TCP: echo from a blocking thread
	portOnce    = 7004 // TCP: echoes one byte and waits for the end
	portIdle    = 7005 // TCP: echo for many connections
	portClosed  = 7006 // TCP: nobody listens
	portOwn     = 7007 // TCP: the client itself
	portUDPEcho = 7011
	portUDPSink = 7012 // UDP: reads and counts

	firstFreshPort  = 10000 // the measures that open ports start here
	firstClientPort = 30720
)

// Ports that fixed relays carry.
var (
	tcpPorts = [...]int{portSink, portSource, portEcho, portOnce, portIdle}
	udpPorts = [...]int{portUDPEcho, portUDPSink}
)
