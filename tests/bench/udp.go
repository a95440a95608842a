//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// floodSize is the payload of a datagram under overload: game and voice
// traffic has this size.
const floodSize = 200

// flood is the part of a client that sends datagrams as fast as it can.
type flood struct {
	mu      sync.Mutex
	stop    atomic.Bool
	sent    atomic.Uint64
	running sync.WaitGroup
}

// StartFlood sends from one socket, one system call per datagram, until
// StopFlood.
func (f *flood) StartFlood(None, *None) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd, err := connectTo(unix.SOCK_DGRAM, portUDPSink)
	if err != nil {
		return err
	}
	f.stop.Store(false)
	f.running.Go(func() {
		runtime.LockOSThread()
		defer unix.Close(fd)
		buf := make([]byte, floodSize)
		for !f.stop.Load() {
			// An error is an ICMP error or a full queue: a loss like others.
			if _, err := unix.Write(fd, buf); err == nil {
				f.sent.Add(1)
			}
		}
	})
	return nil
}

// SendRate counts for d and returns datagrams per second.
func (f *flood) SendRate(d time.Duration, rate *float64) error {
	*rate = perSecond(&f.sent, d)
	return nil
}

// StopFlood ends the flood.
func (f *flood) StopFlood(None, *None) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop.Store(true)
	f.running.Wait()
	return nil
}

// datagramServices is the part of a server that counts datagrams.
type datagramServices struct {
	received atomic.Uint64
}

// serve counts the datagrams of a port, many per system call and with a large
// receive buffer, so that the server is not what is measured.
func (s *datagramServices) serve(port int) error {
	const (
		batch         = 64
		receiveBuffer = 8 << 20
	)
	conn, err := listenUDP(port)
	if err != nil {
		return err
	}
	if err := forceReceiveBuffer(conn, receiveBuffer); err != nil {
		return err
	}
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, floodSize)}
	}
	go func() {
		packets := ipv4.NewPacketConn(conn)
		for {
			n, err := packets.ReadBatch(messages, 0)
			if err != nil {
				return // closed: nobody else may fail an unconnected socket
			}
			s.received.Add(uint64(n))
		}
	}()
	return nil
}

// forceReceiveBuffer sets a receive buffer beyond net.core.rmem_max, as root may.
func forceReceiveBuffer(conn syscall.Conn, bytes int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	})
	return errors.Join(err, os.NewSyscallError("SO_RCVBUFFORCE", set))
}

// datagramOverload measures what arrives of a flood.
func datagramOverload(ctx context.Context, b *bed, d time.Duration) (s sample, err error) {
	if err := b.client.call(ctx, "StartFlood", None{}, nil); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, b.client.call(ctx, "StopFlood", None{}, nil))
	}()
	if err := pause(ctx, warmUp); err != nil {
		return nil, err
	}
	var sent, received float64
	sending := make(chan error, 1)
	go func() { sending <- b.client.call(ctx, "SendRate", d, &sent) }()
	err = b.server.call(ctx, "DatagramRate", d, &received)
	if err := errors.Join(err, <-sending); err != nil {
		return nil, err
	}
	return sample{".received": received, ".sent": sent}, nil
}
