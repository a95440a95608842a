//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// idleConns is the part of a client that holds connections.
type idleConns struct {
	mu    sync.Mutex
	conns []net.Conn
}

// OpenIdle opens connections, sees a byte echoed on each, and keeps them.
func (i *idleConns) OpenIdle(count int, _ *None) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for range count {
		c, err := net.DialTimeout("tcp4", loopbackAddr(portIdle), patience)
		if err != nil {
			return fmt.Errorf("after %d connections: %w", len(i.conns), err)
		}
		i.conns = append(i.conns, c)
		if err := echoes(c); err != nil {
			return fmt.Errorf("connection %d: %w", len(i.conns), err)
		}
	}
	return nil
}

// CloseIdle closes what OpenIdle has opened.
func (i *idleConns) CloseIdle(None, *None) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for _, c := range i.conns {
		errs = append(errs, c.Close())
	}
	i.conns = nil
	return errors.Join(errs...)
}

// echoes sends a byte and waits for its echo.
func echoes(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var buf [1]byte
	if _, err := c.Write(buf[:]); err != nil {
		return err
	}
	if _, err := c.Read(buf[:]); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

const (
	// settle lets processes come to rest after a change.
	settle = time.Second
	// idleTime is how long idle processes are watched. The agent's safety dump
	// comes every ten seconds: this span holds at least one.
	idleTime = 11 * time.Second

	idleConnections = 1000
)

// idleFootprint measures memory and processor time of the subject's processes
// while nothing happens. All beds are watched at once.
func idleFootprint(ctx context.Context, b *bed, _ time.Duration) (sample, error) {
	if len(b.parts) == 0 {
		return nil, errNotApplicable
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	before, err := eachPart(b, cpuTime)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	after, err := eachPart(b, cpuTime)
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	s := sample{}
	for role, used := range after {
		s[".cpu."+role] = 100 * (used - before[role]).Seconds() / elapsed.Seconds()
	}
	return s, b.addMemory(s, ".memory.", 1, nil)
}

// connectionFootprint measures what idle connections add to the memory of the
// subject's processes.
func connectionFootprint(ctx context.Context, b *bed, _ time.Duration) (s sample, err error) {
	if len(b.parts) == 0 {
		return nil, errNotApplicable
	}
	before := sample{}
	if err := b.addMemory(before, ".", 1, nil); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, b.client.call(ctx, "CloseIdle", None{}, nil))
	}()
	if err := b.client.call(ctx, "OpenIdle", idleConnections, nil); err != nil {
		return nil, err
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	s = sample{}
	return s, b.addMemory(s, ".", idleConnections, before)
}

// addMemory adds the resident bytes of the subject's processes to s, less
// those in base, divided by share.
func (b *bed) addMemory(s sample, prefix string, share float64, base sample) error {
	memory, err := eachPart(b, residentBytes)
	if err != nil {
		return err
	}
	for role, bytes := range memory {
		s[prefix+role] = (float64(bytes) - base[prefix+role]) / share
	}
	return nil
}
