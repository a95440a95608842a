//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// runRelay runs one half of a relay pair until it is killed. The arguments are
// the hidden command, the role and the directory for sockets.
func runRelay(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s needs a role and a directory", args[0])
	}
	command, role, dir := args[0], args[1], args[2]
	halves := map[string]func(dir string) error{
		cmdSplice + roleHost:     spliceHost,
		cmdSplice + roleGuest:    spliceGuest,
		cmdYamux + roleHost:      yamuxHost,
		cmdYamux + roleGuest:     yamuxGuest,
		cmdDatagrams + roleHost:  datagramsHost,
		cmdDatagrams + roleGuest: datagramsGuest,
	}
	half, ok := halves[command+role]
	if !ok {
		return fmt.Errorf("%s has no role %q", command, role)
	}
	return half(dir)
}

// acceptTCP hands the connections of all forwarded TCP ports to handle, one
// goroutine each. It returns when a listener fails.
func acceptTCP(handle func(c *net.TCPConn, port int)) error {
	failed := make(chan error)
	for _, port := range tcpPorts {
		l, err := listenTCP(port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					failed <- err
					return
				}
				go handle(c, port)
			}
		}()
	}
	return <-failed
}

// dialTCP connects to a server of the guest.
func dialTCP(port int) (*net.TCPConn, error) {
	return net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// A halfCloser is a stream whose directions end separately.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// joinStreams carries both directions by copy and passes each end on. When a
// direction fails, abort ends both streams.
func joinStreams(a, b halfCloser, copy func(dst, src halfCloser) error, abort func()) {
	defer a.Close()
	defer b.Close()
	direction := func(dst, src halfCloser) {
		if copy(dst, src) != nil || dst.CloseWrite() != nil {
			abort()
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		direction(a, b)
	}()
	direction(b, a)
	<-done
}

// socketPath names a unix socket of a relay pair.
func socketPath(dir, name string) string { return filepath.Join(dir, name+".sock") }

// logRelay notes what a relay pair should never see.
func logRelay(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
