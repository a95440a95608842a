//go:build linux

package main

import (
	"io"
	"net"
	"strconv"
)

// The bare splice relay pair: as little as two relays can do. The host half
// dials one unix socket per TCP connection, the guest half one TCP connection
// per unix socket. Between these two kinds of sockets io.Copy uses splice(2),
// so that payload never enters a process. A reset arrives as an end, because
// a unix socket cannot carry it.

func startSplice(b *bed) error { return b.startRelays(cmdSplice) }

func spliceHost(dir string) error {
	return acceptTCP(func(c *net.TCPConn, port int) {
		u, err := net.DialUnix("unix", nil, spliceAddr(dir, port))
		if err != nil {
			logRelay(err)
			c.Close()
			return
		}
		joinSpliced(c, u)
	})
}

func spliceGuest(dir string) error {
	failed := make(chan error)
	for _, port := range tcpPorts {
		l, err := net.ListenUnix("unix", spliceAddr(dir, port))
		if err != nil {
			return err
		}
		go func() {
			for {
				u, err := l.AcceptUnix()
				if err != nil {
					failed <- err
					return
				}
				go func() {
					c, err := dialTCP(port)
					if err != nil {
						logRelay(err)
						u.Close()
						return
					}
					joinSpliced(c, u)
				}()
			}
		}()
	}
	return <-failed
}

func spliceAddr(dir string, port int) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: socketPath(dir, strconv.Itoa(port))}
}

func joinSpliced(c *net.TCPConn, u *net.UnixConn) {
	copySpliced := func(dst, src halfCloser) error {
		_, err := io.Copy(dst, src)
		return err
	}
	joinStreams(c, u, copySpliced, func() {
		c.Close()
		u.Close()
	})
}
