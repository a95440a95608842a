//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// roundTrips is the part of a client that ping-pongs one byte.
type roundTrips struct{}

// Quantiles of a set of measurements.
type Quantiles struct {
	Count         int
	Lost          int // datagrams without an answer
	P50, P95, P99 time.Duration
}

// StreamRoundTrips exchanges single bytes over one TCP connection for d.
func (roundTrips) StreamRoundTrips(d time.Duration, q *Quantiles) error {
	return exchangeFor(d, unix.SOCK_STREAM, portEcho, q)
}

// DatagramRoundTrips exchanges single-byte datagrams on one UDP socket for d.
func (roundTrips) DatagramRoundTrips(d time.Duration, q *Quantiles) error {
	return exchangeFor(d, unix.SOCK_DGRAM, portUDPEcho, q)
}

func exchangeFor(d time.Duration, sockType, port int, q *Quantiles) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := connectTo(sockType, port)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const warmUpExchanges = 200
	var (
		buf     [1]byte
		took    = make([]time.Duration, 0, 1<<17)
		warm    int
		lost    int
		stop    time.Time
		started time.Time
	)
	for {
		start := time.Now()
		if warm == warmUpExchanges && !stop.IsZero() && start.After(stop) {
			break
		}
		err := exchange(fd, &buf)
		if sockType == unix.SOCK_DGRAM && errors.Is(err, unix.EAGAIN) {
			if lost++; lost > 1 {
				return fmt.Errorf("%d of %d datagrams without an answer within %v", lost, len(took)+lost, patience)
			}
			continue
		}
		if err != nil {
			return err
		}
		if warm < warmUpExchanges {
			if warm++; warm == warmUpExchanges {
				started = time.Now()
				stop = started.Add(d)
			}
			continue
		}
		took = append(took, time.Since(start))
	}
	*q = quantiles(took)
	q.Lost = lost
	return nil
}

// roundTrip measures with every process of the bed on one processor: where
// the scheduler places the processes would otherwise decide, not the code.
func roundTrip(method string) func(context.Context, *bed, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bed, d time.Duration) (s sample, err error) {
		restore, err := b.pin()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, restore()) }()
		var q Quantiles
		if err := b.client.call(ctx, method, d, &q); err != nil {
			return nil, err
		}
		return sample{".p50": q.P50.Seconds(), ".p99": q.P99.Seconds()}, nil
	}
}

// serveUDPEcho answers every datagram from a thread that blocks in recvfrom.
func serveUDPEcho(port int) error {
	conn, err := listenUDP(port)
	if err != nil {
		return err
	}
	defer conn.Close() // the thread has its own descriptor
	fd, err := blockingFD(conn)
	if err != nil {
		return err
	}
	go echoDatagrams(fd)
	return nil
}

func echoDatagrams(fd int) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if err := unix.Sendto(fd, buf[:n], 0, from); err != nil {
			continue // the client is gone
		}
	}
}
