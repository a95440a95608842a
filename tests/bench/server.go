//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is the worker at the other end: every service that the measures
// need, from its start to its end.
type Server struct {
	streams   streamServices
	datagrams datagramServices
	freshPorts
}

// newServer starts all services.
func newServer() (*Server, error) {
	s := &Server{}
	for _, start := range []func() error{
		func() error { return serveTCP(portSink, s.streams.sink) },
		func() error { return serveTCP(portSource, s.streams.source) },
		func() error { return serveTCP(portEcho, echoBlocking) },
		func() error { return serveOnce(portOnce) },
		func() error { return serveTCP(portIdle, echo) },
		func() error { return serveUDPEcho(portUDPEcho) },
		func() error { return s.datagrams.serve(portUDPSink) },
	} {
		if err := start(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// SinkRate counts for d and returns bytes per second.
func (s *Server) SinkRate(d time.Duration, rate *float64) error {
	*rate = perSecond(&s.streams.received, d)
	return nil
}

// DatagramRate counts for d and returns datagrams per second.
func (s *Server) DatagramRate(d time.Duration, rate *float64) error {
	*rate = perSecond(&s.datagrams.received, d)
	return nil
}

// Quiet waits until no bulk connection is left.
func (s *Server) Quiet(d time.Duration, _ *None) error {
	return poll(d, func() (bool, error) { return s.streams.open.Load() == 0, nil })
}

// perSecond returns by how much counter grows per second, measured for d.
func perSecond(counter *atomic.Uint64, d time.Duration) float64 {
	before, start := counter.Load(), time.Now()
	time.Sleep(d)
	grown, elapsed := counter.Load()-before, time.Since(start)
	return float64(grown) / elapsed.Seconds()
}

var errTimeout = errors.New("timed out")

// poll calls f every 5 ms until it says so, fails, or d has passed.
func poll(d time.Duration, f func() (bool, error)) error {
	const interval = 5 * time.Millisecond
	deadline := time.Now().Add(d)
	for {
		done, err := f()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return errTimeout
		}
		time.Sleep(interval)
	}
}

// serveTCP hands the connections of a port to handle, one goroutine each.
func serveTCP(port int, handle func(*net.TCPConn)) error {
	l, err := listenTCP(port)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return // the listener is closed
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return nil
}

// echo returns what it reads.
func echo(c *net.TCPConn) {
	buf := make([]byte, 512) // not io.Copy: that would keep a pipe per connection
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// echoBlocking returns what it reads, from a thread that blocks in read.
func echoBlocking(c *net.TCPConn) {
	fd, err := blockingFD(c)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	c.Close() // fd is a second descriptor of the same socket
	buf := make([]byte, 512)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

// streamServices are the bulk services of a server.
type streamServices struct {
	received atomic.Uint64
	open     atomic.Int64
}

// sink reads and counts.
func (s *streamServices) sink(c *net.TCPConn) {
	s.open.Add(1)
	defer s.open.Add(-1)
	drain(c, &s.received)
}

// source writes as fast as it can.
func (s *streamServices) source(c *net.TCPConn) {
	s.open.Add(1)
	defer s.open.Add(-1)
	fill(c)
}

// bulkBuffer is what a client or server passes to one read or write.
const bulkBuffer = 128 << 10

func drain(r io.Reader, counter *atomic.Uint64) {
	buf := make([]byte, bulkBuffer)
	for {
		n, err := r.Read(buf)
		counter.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

func fill(w io.Writer) {
	buf := make([]byte, bulkBuffer)
	for {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}
