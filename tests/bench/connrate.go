//go:build linux

package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// connRate is the part of a client that opens connections.
type connRate struct{}

// ConnRateArgs says how many clients connect for how long.
type ConnRateArgs struct {
	Clients  int
	Duration time.Duration
}

// ConnectionsPerSecond counts connections from connect to close. Each sends a
// byte, waits for its echo and is then reset by the client; the server closes
// after it has seen the end. So there is exactly one close at a time, and no
// TIME_WAIT at the client. A relay that can only pass the reset on as an end
// gathers TIME_WAIT in the guest namespace, whose ports Linux reuses on
// loopback after one second (tcp_tw_reuse=2, the default).
func (connRate) ConnectionsPerSecond(args ConnRateArgs, rate *float64) error {
	var (
		done    atomic.Uint64
		stop    atomic.Bool
		clients sync.WaitGroup
		failed  = make(chan error, args.Clients)
	)
	for range args.Clients {
		clients.Go(func() {
			for !stop.Load() {
				if err := connectOnce(); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		})
	}
	time.Sleep(warmUp)
	*rate = perSecond(&done, args.Duration)
	stop.Store(true)
	clients.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func connectOnce() error {
	fd, err := connectTo(unix.SOCK_STREAM, portOnce)
	if err != nil {
		return err
	}
	var buf [1]byte
	if err := exchange(fd, &buf); err != nil {
		abort(fd)
		return err
	}
	return abort(fd)
}

// serveOnce serves connections from blocking threads: accept, echo one byte,
// wait for the end, close. There are more threads than the measure has
// clients, because a relay may tell of a connection's end late.
func serveOnce(port int) error {
	const threads = 96
	l, err := listenTCP(port)
	if err != nil {
		return err
	}
	defer l.Close() // the threads have their own descriptor
	fd, err := blockingFD(l)
	if err != nil {
		return err
	}
	for range threads {
		go func() {
			for {
				if conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
					echoOnce(conn)
				}
			}
		}()
	}
	return nil
}

func echoOnce(conn int) {
	defer unix.Close(conn)
	var buf [1]byte
	for {
		n, err := unix.Read(conn, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(conn, buf[:]); err != nil {
			return
		}
	}
}

func connectionsPerSecond(clients int) func(context.Context, *bed, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bed, d time.Duration) (sample, error) {
		var rate float64
		err := b.client.call(ctx, "ConnectionsPerSecond", ConnRateArgs{clients, d}, &rate)
		return sample{"": rate}, err
	}
}
