// Package hybriddouble plays the vsock of Firecracker and cloud-hypervisor, as
// their documentation describes it:
// https://github.com/firecracker-microvm/firecracker/blob/main/docs/vsock.md, and
// https://github.com/cloud-hypervisor/cloud-hypervisor/blob/main/docs/vsock.md,
// which refers to the former.
//
// A client connects to a unix socket and sends "CONNECT PORT\n". When somebody in
// the guest listens on that port the answer is "OK HOST_PORT\n", with the port
// that the host's end got, which are counted from 1<<30, and from then on the
// socket is the stream. When nobody listens the connection is closed, without a
// word.
package hybriddouble

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vmbridge/vmbridge/tests/unixserver"
)

// Start plays a virtual machine until the test ends, and gives the socket's path.
// The guest's ports are unix sockets.
func Start(t testing.TB, guest map[uint32]string) (socket string) {
	t.Helper()
	var hostPort atomic.Uint32
	hostPort.Store(1 << 30)
	return unixserver.Start(t, func(c net.Conn) {
		port, err := request(c)
		if err != nil {
			return
		}
		to, err := net.Dial("unix", guest[port])
		if err != nil {
			return
		}
		defer to.Close()
		if _, err := fmt.Fprintf(c, "OK %d\n", hostPort.Add(1)-1); err != nil {
			return
		}
		relay(c.(*net.UnixConn), to.(*net.UnixConn))
	})
}

// request reads no more than the request, as what follows is the guest's.
func request(c net.Conn) (port uint32, err error) {
	var line []byte
	for b := make([]byte, 1); b[0] != '\n' && len(line) < 32; line = append(line, b[0]) {
		if _, err := c.Read(b); err != nil {
			return 0, err
		}
	}
	_, err = fmt.Sscanf(string(line), "CONNECT %d\n", &port)
	return port, err
}

// relay ends both when either has ended altogether. Neither hypervisor passes on
// the end of one direction alone, so nobody may rely on it.
func relay(a, b *net.UnixConn) {
	var work sync.WaitGroup
	for _, p := range [][2]*net.UnixConn{{a, b}, {b, a}} {
		work.Go(func() {
			io.Copy(p[0], p[1])
			a.Close()
			b.Close()
		})
	}
	work.Wait()
}
