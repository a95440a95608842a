// Package unixserver is how tests play what answers on a unix socket.
package unixserver

import (
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
)

// Start hands every connection to answer, which need not close it, until the test
// ends, and gives the socket's path.
func Start(t testing.TB, answer func(net.Conn)) (socket string) {
	t.Helper()
	return serve(t, func(l net.Listener) {
		var answering sync.WaitGroup
		defer answering.Wait()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answering.Go(func() {
				defer conn.Close()
				answer(conn)
			})
		}
	}, func(l net.Listener) { l.Close() })
}

// StartHTTP answers requests until the test ends, and gives the socket's path.
func StartHTTP(t testing.TB, handler http.Handler) (socket string) {
	t.Helper()
	server := &http.Server{Handler: handler}
	return serve(t, func(l net.Listener) { server.Serve(l) }, func(net.Listener) { server.Close() })
}

func serve(t testing.TB, run, stop func(net.Listener)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { run(l) })
	t.Cleanup(func() {
		stop(l)
		serving.Wait()
	})
	return socket
}
