//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	manyPorts = 10_000
	// manyPortsPatience is how long all of them may take to appear.
	manyPortsPatience = 30 * time.Second
	// Every so many ports one is tried after all have appeared.
	manyPortsStride = 50
)

// ListenMany opens a listener on each port of a range and returns the time
// just before the first.
func (f *freshPorts) ListenMany(r PortRange, at *time.Duration) error {
	*at = monotonic()
	for port := r.First; port < r.End; port++ {
		var ignored time.Duration
		if err := f.Listen(port, &ignored); err != nil {
			return err
		}
	}
	return nil
}

// UnlistenMany closes the listeners of a range and returns the time just
// before the first.
func (f *freshPorts) UnlistenMany(r PortRange, at *time.Duration) error {
	*at = monotonic()
	var errs []error
	for port := r.First; port < r.End; port++ {
		var ignored time.Duration
		errs = append(errs, f.Unlisten(port, &ignored))
	}
	return errors.Join(errs...)
}

// PortRange is the ports from First up to, but not including, End.
type PortRange struct{ First, End int }

// AwaitArgs says how many ports of a range are to be open.
type AwaitArgs struct {
	Ports PortRange
	Count int
}

// AwaitPorts waits until Count ports of the range listen in the host's
// namespace and returns the time.
func (p *probes) AwaitPorts(args AwaitArgs, at *time.Duration) error {
	// Reading the table of sockets with 10,000 entries takes some ms of a
	// processor that daemon and agent need: do not ask too often.
	const interval = 40 * time.Millisecond
	deadline := time.Now().Add(manyPortsPatience)
	for {
		n, err := listeningPorts(args.Ports.First, args.Ports.End)
		if err != nil {
			return err
		}
		*at = monotonic()
		if n == args.Count {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d instead of %d ports open after %v", n, args.Count, manyPortsPatience)
		}
		time.Sleep(interval)
	}
}

// TryPorts connects to some ports of a range and sees a byte echoed.
func (p *probes) TryPorts(r PortRange, _ *None) error {
	for port := r.First; port < r.End; port += manyPortsStride {
		if err := tryPort(port); err != nil {
			return fmt.Errorf("port %d: %w", port, err)
		}
	}
	return nil
}

func tryPort(port int) error {
	c, err := net.DialTimeout("tcp4", loopbackAddr(port), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoes(c)
}

// openManyPorts measures from the first listen() of 10,000 in the guest until
// the last is open on the host, what they cost, and the way back.
func openManyPorts(ctx context.Context, b *bed, _ time.Duration) (sample, error) {
	ports := PortRange{firstFreshPort, firstFreshPort + manyPorts}
	var opening, open, closing, closed time.Duration
	appeared := make(chan error, 1)
	go func() {
		appeared <- b.client.call(ctx, "AwaitPorts", AwaitArgs{ports, manyPorts}, &open)
	}()
	err := b.server.call(ctx, "ListenMany", ports, &opening)
	if err := errors.Join(err, <-appeared); err != nil {
		return nil, err
	}
	if err := b.client.call(ctx, "TryPorts", ports, nil); err != nil {
		return nil, err
	}
	s := sample{".open": (open - opening).Seconds()}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	if err := b.addMemory(s, ".memory.", 1, nil); err != nil {
		return nil, err
	}
	go func() {
		appeared <- b.client.call(ctx, "AwaitPorts", AwaitArgs{ports, 0}, &closed)
	}()
	err = b.server.call(ctx, "UnlistenMany", ports, &closing)
	if err := errors.Join(err, <-appeared); err != nil {
		return nil, err
	}
	s[".close"] = (closed - closing).Seconds()
	return s, nil
}
