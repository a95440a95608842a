//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// freshPorts is the part of a server that opens and closes listeners. Times
// are of CLOCK_MONOTONIC, which client and server share.
type freshPorts struct {
	mu        sync.Mutex
	listeners map[int]*net.TCPListener
}

// Listen opens a listener and returns the time just before.
func (f *freshPorts) Listen(port int, at *time.Duration) error {
	*at = monotonic()
	l, err := listenTCP(port)
	if err != nil {
		return err
	}
	go acceptEcho(l)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners == nil {
		f.listeners = make(map[int]*net.TCPListener)
	}
	f.listeners[port] = l
	return nil
}

// Unlisten closes a listener and returns the time just before.
func (f *freshPorts) Unlisten(port int, at *time.Duration) error {
	f.mu.Lock()
	l := f.listeners[port]
	delete(f.listeners, port)
	f.mu.Unlock()
	if l == nil {
		return fmt.Errorf("nobody listens on port %d", port)
	}
	*at = monotonic()
	return l.Close()
}

// acceptEcho serves a listener until it is closed.
func acceptEcho(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			echo(c)
		}()
	}
}

// probes is the part of a client that watches ports come and go. A probe
// starts before what it watches for, and says when it has begun.
type probes struct {
	mu    sync.Mutex
	probe chan probeResult
}

type probeResult struct {
	at  time.Duration
	err error
}

// Between two attempts of a probe. A tight loop would take one of two
// processors from the processes that are measured.
const probeInterval = 100 * time.Microsecond

// StartReachProbe begins to connect to a port until it is served.
func (p *probes) StartReachProbe(port int, _ *None) error {
	return p.start(func() (bool, error) {
		fd, err := connectTo(unix.SOCK_STREAM, port)
		if errors.Is(err, unix.ECONNREFUSED) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		var buf [1]byte
		return true, errors.Join(exchange(fd, &buf), abort(fd))
	})
}

// StartReleaseProbe begins to bind a port until that succeeds.
func (p *probes) StartReleaseProbe(port int, _ *None) error {
	return p.start(func() (bool, error) {
		l, err := listenTCP(port)
		if errors.Is(err, unix.EADDRINUSE) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, l.Close()
	})
}

// start tries once, which must fail, and then goes on in the background.
func (p *probes) start(try func() (bool, error)) error {
	if done, err := try(); err != nil || done {
		return errors.Join(errors.New("the first attempt was not refused"), err)
	}
	result := make(chan probeResult, 1)
	p.mu.Lock()
	p.probe = result
	p.mu.Unlock()
	go func() {
		deadline := time.Now().Add(patience)
		for {
			done, err := try()
			now := monotonic()
			if err == nil && !done && time.Now().After(deadline) {
				err = errTimeout
			}
			if err != nil || done {
				result <- probeResult{now, err}
				return
			}
			time.Sleep(probeInterval)
		}
	}()
	return nil
}

// AwaitProbe returns the time at which the probe succeeded.
func (p *probes) AwaitProbe(_ None, at *time.Duration) error {
	p.mu.Lock()
	result := p.probe
	p.mu.Unlock()
	if result == nil {
		return errors.New("no probe has begun")
	}
	r := <-result
	*at = r.at
	return r.err
}

// listenLatencySamples is how often a port comes and goes.
const listenLatencySamples = 200

// listenLatency measures from listen() in the guest to the first connection
// from the host, its echo included, and from close() in the guest until the
// host can bind the port. Every sample has a port of its own.
func listenLatency(ctx context.Context, b *bed, _ time.Duration) (sample, error) {
	var opened, released []time.Duration
	for port := firstFreshPort; port < firstFreshPort+listenLatencySamples; port++ {
		open, err := b.eventLatency(ctx, "StartReachProbe", "Listen", port)
		if err != nil {
			return nil, err
		}
		closed, err := b.eventLatency(ctx, "StartReleaseProbe", "Unlisten", port)
		if err != nil {
			return nil, err
		}
		opened, released = append(opened, open), append(released, closed)
	}
	open, closed := quantiles(opened), quantiles(released)
	return sample{
		".open.p50": open.P50.Seconds(), ".open.p95": open.P95.Seconds(),
		".release.p50": closed.P50.Seconds(), ".release.p95": closed.P95.Seconds(),
	}, nil
}

// eventLatency starts a probe, lets the server act, and returns how long the
// probe took to see it.
func (b *bed) eventLatency(ctx context.Context, probe, act string, port int) (time.Duration, error) {
	if err := b.client.call(ctx, probe, port, nil); err != nil {
		return 0, err
	}
	var acted, seen time.Duration
	if err := b.server.call(ctx, act, port, &acted); err != nil {
		return 0, err
	}
	if err := b.client.call(ctx, "AwaitProbe", None{}, &seen); err != nil {
		return 0, err
	}
	return seen - acted, nil
}
