package hybrid

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bufferBytes of each direction. Unix sockets carry half as much again with writes
// of 128 KiB as with half of that, see package transport.
const bufferBytes = 128 << 10

// relay is one stream and its client.
type relay struct {
	client   *net.UnixConn
	guest    Stream
	linger   time.Duration
	ended    atomic.Int32 // directions that have ended
	deadline time.Time    // of writes to the guest
}

// relay carries both directions until both have ended, one side has gone, or ctx
// ends, and closes the stream. The client is the caller's to close.
func (s *Server) relay(ctx context.Context, client *net.UnixConn, guest Stream) {
	r := &relay{client: client, guest: guest, linger: s.times.linger}
	stop := context.AfterFunc(ctx, r.reset)
	var down sync.WaitGroup
	down.Go(func() { s.withBuffer(r.down) })
	s.withBuffer(r.up)
	down.Wait()
	stop()
	_ = guest.Close()
}

func (s *Server) withBuffer(carry func([]byte)) {
	b := s.pool.Get().(*[bufferBytes]byte)
	defer s.pool.Put(b)
	carry(b[:])
}

// reset ends both directions at once.
func (r *relay) reset() {
	_ = r.guest.Abort()
	_ = r.client.Close()
}

// end notes that a direction has ended well; the second one closes both, which
// wakes whoever waits for the client to hang up.
func (r *relay) end() {
	if r.ended.Add(1) == 2 {
		_ = r.guest.Close()
		_ = r.client.Close()
	}
}

// up carries from the client to the guest. After the end it waits for the client
// to be gone, with whom nobody reads what the guest still sends.
func (r *relay) up(buffer []byte) {
	if !r.carryUp(buffer) {
		return
	}
	r.end()
	if waitHangup(r.client) {
		_ = r.guest.Close() // which sends what is left
	}
}

// carryUp reports whether the direction alone has ended.
func (r *relay) carryUp(buffer []byte) bool {
	for {
		n, err := r.client.Read(buffer)
		if n > 0 && r.toGuest(buffer[:n]) != nil {
			// The guest reads no more, and the client shall write no more.
			_ = r.client.CloseRead()
			return true
		}
		switch {
		case err == io.EOF:
			_ = r.guest.CloseWrite()
			return true
		case err != nil:
			r.reset()
			return false
		}
	}
}

// toGuest writes all of p. While the guest takes nothing it looks now and then
// whether the client still cares.
func (r *relay) toGuest(p []byte) error {
	for {
		if now := time.Now(); r.deadline.Sub(now) < r.linger/2 {
			r.deadline = now.Add(r.linger)
			_ = r.guest.SetWriteDeadline(r.deadline)
		}
		n, err := r.guest.Write(p)
		if p = p[n:]; !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if n == 0 && hungUp(r.client) {
			r.reset()
			return err
		}
	}
}

// down carries from the guest to the client.
func (r *relay) down(buffer []byte) {
	discard := false
	for {
		n, err := r.guest.Read(buffer)
		if n > 0 && !discard {
			// What the client does not read any more is read here instead: what it
			// has written before may still be on its way to the guest.
			_, failed := r.client.Write(buffer[:n])
			discard = failed != nil
		}
		switch {
		case err == io.EOF:
			_ = r.client.CloseWrite()
			r.end()
			return
		case err != nil:
			r.reset()
			return
		}
	}
}
