//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
)

// The go-yamux relay pair: one unix socket, one stream per TCP connection,
// which begins with the port as two bytes.

func startYamux(b *bed) error { return b.startRelays(cmdYamux) }

// yamuxConfig is the library's default with what bulk over a local socket
// wants: windows that do not limit, large reads and messages, no pings.
func yamuxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.InitialStreamWindowSize = 4 << 20
	c.MaxStreamWindowSize = 16 << 20
	// The limit counts the header: at bulkBuffer every full write would become
	// a large and a tiny message, which costs a quarter of the throughput.
	c.MaxMessageSize = 2 * bulkBuffer
	c.ReadBufSize = 64 << 10
	c.WriteCoalesceDelay = 0
	c.EnableKeepAlive = false
	c.MeasureRTTInterval = time.Hour
	c.MaxIncomingStreams = 1 << 16
	c.AcceptBacklog = 4096
	c.LogOutput = os.Stderr
	return c
}

const yamuxSocket = "yamux"

func yamuxHost(dir string) error {
	var conn net.Conn
	err := poll(patience, func() (bool, error) { // the other half may not listen yet
		c, err := net.Dial("unix", socketPath(dir, yamuxSocket))
		conn = c
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	session, err := yamux.Client(conn, yamuxConfig(), nil)
	if err != nil {
		return err
	}
	join := newYamuxJoin()
	return acceptTCP(func(c *net.TCPConn, port int) {
		stream, err := session.OpenStream(context.Background())
		if err != nil {
			logRelay(err)
			c.Close()
			return
		}
		if err := binary.Write(stream, binary.BigEndian, uint16(port)); err != nil {
			logRelay(err)
		}
		join(c, stream)
	})
}

func yamuxGuest(dir string) error {
	l, err := net.Listen("unix", socketPath(dir, yamuxSocket))
	if err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	session, err := yamux.Server(conn, yamuxConfig(), nil)
	if err != nil {
		return err
	}
	join := newYamuxJoin()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return err
		}
		go func() {
			var port uint16
			err := binary.Read(stream, binary.BigEndian, &port)
			if err == nil {
				var c *net.TCPConn
				if c, err = dialTCP(int(port)); err == nil {
					join(c, stream)
					return
				}
			}
			logRelay(err)
			stream.Reset()
		}()
	}
}

// newYamuxJoin returns a function that joins a connection and a stream through
// pooled buffers.
func newYamuxJoin() func(*net.TCPConn, *yamux.Stream) {
	pool := sync.Pool{New: func() any { return new([bulkBuffer]byte) }}
	copyPooled := func(dst, src halfCloser) error {
		buf := pool.Get().(*[bulkBuffer]byte)
		defer pool.Put(buf)
		// The wrappers hide ReadFrom and WriteTo, which would use smaller
		// buffers of their own.
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
		return err
	}
	return func(c *net.TCPConn, stream *yamux.Stream) {
		joinStreams(c, stream, copyPooled, func() {
			c.Close()
			stream.Reset() // after Close the other half would wait for window for ever
		})
	}
}
