//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// transfers is the part of a client that moves bulk data.
type transfers struct {
	received atomic.Uint64

	mu      sync.Mutex
	conns   []*net.TCPConn
	running sync.WaitGroup
}

// StartUpload opens connections and writes to them until StopTransfers.
func (t *transfers) StartUpload(streams int, _ *None) error {
	return t.start(streams, portSink, func(c *net.TCPConn) { fill(c) })
}

// StartDownload opens connections and reads from them until StopTransfers.
func (t *transfers) StartDownload(streams int, _ *None) error {
	return t.start(streams, portSource, func(c *net.TCPConn) { drain(c, &t.received) })
}

func (t *transfers) start(streams, port int, move func(*net.TCPConn)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range streams {
		c, err := net.DialTimeout("tcp4", loopbackAddr(port), patience)
		if err != nil {
			return err
		}
		conn := c.(*net.TCPConn)
		t.conns = append(t.conns, conn)
		t.running.Go(func() { move(conn) })
	}
	return nil
}

// ReceiveRate counts for d and returns bytes per second.
func (t *transfers) ReceiveRate(d time.Duration, rate *float64) error {
	*rate = perSecond(&t.received, d)
	return nil
}

// StopTransfers aborts all connections.
func (t *transfers) StopTransfers(None, *None) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		c.SetLinger(0)
		c.Close()
	}
	t.conns = nil
	t.running.Wait()
	return nil
}

// throughput measures bits per second at the receiver.
func throughput(streams int, upload bool) func(context.Context, *bed, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bed, d time.Duration) (s sample, err error) {
		defer func() {
			err = errors.Join(err,
				b.client.call(ctx, "StopTransfers", None{}, nil),
				b.server.call(ctx, "Quiet", patience, nil))
		}()
		start, receiver, count := "StartDownload", b.client, "ReceiveRate"
		if upload {
			start, receiver, count = "StartUpload", b.server, "SinkRate"
		}
		if err := b.client.call(ctx, start, streams, nil); err != nil {
			return nil, err
		}
		// Slow start, growing socket buffers and windows do not count.
		if err := pause(ctx, warmUp); err != nil {
			return nil, err
		}
		var rate float64
		if err := receiver.call(ctx, count, d, &rate); err != nil {
			return nil, err
		}
		return sample{"": rate * 8}, nil
	}
}

// warmUp precedes every measurement of a rate.
const warmUp = 200 * time.Millisecond

// pause waits for d or for ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
