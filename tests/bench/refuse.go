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

// refused is the part of a client that connects to ports where nobody listens,
// or where it listens itself.
type refused struct{}

// ClosedPort connects to a closed port for d: every attempt has to be refused.
func (refused) ClosedPort(d time.Duration, q *Quantiles) error {
	return connectFor(d, portClosed, unix.ECONNREFUSED, q)
}

// OwnListener connects for d to a listener in the client's own namespace.
func (refused) OwnListener(d time.Duration, q *Quantiles) error {
	l, err := listenTCP(portOwn)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	}()
	return connectFor(d, portOwn, nil, q)
}

// connectFor measures connect() alone.
func connectFor(d time.Duration, port int, want error, q *Quantiles) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []time.Duration
	for stop := time.Now().Add(d); time.Now().Before(stop); {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = setPatience(fd, patience)
		start := time.Now()
		if err == nil {
			err = unix.Connect(fd, loopback(port))
		}
		spent := time.Since(start)
		if closeErr := abort(fd); closeErr != nil {
			return closeErr
		}
		if errors.Is(err, unix.EINTR) {
			continue // a signal of Go's scheduler; no answer to measure
		}
		took = append(took, spent)
		if !errors.Is(err, want) {
			return fmt.Errorf("connect to port %d: got %v, want %v", port, err, want)
		}
	}
	*q = quantiles(took)
	return nil
}

func refusals(ctx context.Context, b *bed, d time.Duration) (sample, error) {
	var q Quantiles
	err := b.client.call(ctx, "ClosedPort", d, &q)
	return sample{".p50": q.P50.Seconds(), ".p99": q.P99.Seconds()}, err
}

func localConnects(ctx context.Context, b *bed, d time.Duration) (s sample, err error) {
	restore, err := b.pin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, restore()) }()
	var q Quantiles
	if err := b.client.call(ctx, "OwnListener", d, &q); err != nil {
		return nil, err
	}
	return sample{".p50": q.P50.Seconds()}, nil
}
