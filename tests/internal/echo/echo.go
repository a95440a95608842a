// Package echo has servers that send back what they get.
package echo

import (
	"io"
	"net"
)

// TCP serves connections until the listener is closed. Each is closed when its
// client has closed, or half-closed, it.
func TCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // a client that breaks off is its own affair
		}()
	}
}

// largestDatagram is what the length field of UDP allows.
const largestDatagram = 65535

// UDP serves datagrams until the socket is closed.
func UDP(c *net.UDPConn) {
	buf := make([]byte, largestDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}
