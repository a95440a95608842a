//go:build linux

package main

import (
	"fmt"
	"net"
	"strconv"
)

// The bare pair of UDP relays: one datagram per system call. The hop between
// the halves is a unix datagram socket per client, connected to the guest
// half's socket of the port; the guest half keeps a UDP socket per client. A
// real relay also forgets clients; here the few of a run may stay.

func startDatagrams(b *bed) error { return b.startRelays(cmdDatagrams) }

const maxDatagram = 1 << 16

func datagramsHost(dir string) error {
	failed := make(chan error)
	for _, port := range udpPorts {
		conn, err := listenUDP(port)
		if err != nil {
			return err
		}
		go func() { failed <- relayClients(conn, dir, port) }()
	}
	return <-failed
}

// relayClients carries what arrives at a UDP port of the host.
func relayClients(conn *net.UDPConn, dir string, port int) error {
	hops := make(map[string]*net.UnixConn)
	buf := make([]byte, maxDatagram)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		hop, ok := hops[client.String()]
		if !ok {
			name := socketPath(dir, fmt.Sprintf("%d-%d", port, client.Port()))
			hop, err = net.DialUnix("unixgram", &net.UnixAddr{Net: "unixgram", Name: name}, datagramAddr(dir, port))
			if err != nil {
				logRelay(err)
				continue
			}
			hops[client.String()] = hop
			go func() {
				answer := make([]byte, maxDatagram)
				for {
					n, err := hop.Read(answer)
					if err != nil {
						logRelay(err)
						return
					}
					// An error is an ICMP error of an earlier answer.
					conn.WriteToUDPAddrPort(answer[:n], client)
				}
			}()
		}
		if _, err := hop.Write(buf[:n]); err != nil {
			logRelay(err)
		}
	}
}

func datagramsGuest(dir string) error {
	failed := make(chan error)
	for _, port := range udpPorts {
		conn, err := net.ListenUnixgram("unixgram", datagramAddr(dir, port))
		if err != nil {
			return err
		}
		go func() { failed <- relayToServer(conn, port) }()
	}
	return <-failed
}

// relayToServer carries what arrives from the host half for one port.
func relayToServer(conn *net.UnixConn, port int) error {
	servers := make(map[string]*net.UDPConn)
	buf := make([]byte, maxDatagram)
	for {
		n, hop, err := conn.ReadFromUnix(buf)
		if err != nil {
			return err
		}
		server, ok := servers[hop.Name]
		if !ok {
			server, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				logRelay(err)
				continue
			}
			servers[hop.Name] = server
			go func() {
				answer := make([]byte, maxDatagram)
				for {
					n, err := server.Read(answer)
					if err != nil {
						continue // refused: the server is not there now
					}
					if _, err := conn.WriteToUnix(answer[:n], hop); err != nil {
						logRelay(err)
					}
				}
			}()
		}
		// An error is an ICMP error of an earlier datagram.
		server.Write(buf[:n])
	}
}

func datagramAddr(dir string, port int) *net.UnixAddr {
	return &net.UnixAddr{Net: "unixgram", Name: socketPath(dir, "udp-"+strconv.Itoa(port))}
}
