//go:build unix

package hybrid_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/hostside/hybrid"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// halfCloser is either end.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestConn(t *testing.T) {
	b := newBed(t, nil, nil)
	for _, reversed := range []bool{false, true} {
		t.Run(fmt.Sprintf("reversed %t", reversed), func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, guest := b.pair(t)
				client.SetDeadline(time.Time{})
				guest.SetDeadline(time.Time{})
				c1, c2 = client, guest
				if reversed {
					c1, c2 = guest, client
				}
				return c1, c2, func() { client.Close(); guest.Close() }, nil
			})
		})
	}
	b.idle(t)
}

// D1: after one side has ended its direction, every byte of the other arrives.
func TestHalfClose(t *testing.T) {
	b := newBed(t, nil, nil)
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		for _, clientFirst := range []bool{true, false} {
			client, guest := b.pair(t)
			var first, second halfCloser = client, guest
			if !clientFirst {
				first, second = guest, client
			}
			io.WriteString(first, "request")
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(second); string(got) != "request" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			reply := noise(size)
			go func() {
				second.Write(reply)
				second.Close()
			}()
			got, err := io.ReadAll(first)
			if !bytes.Equal(got, reply) || err != nil {
				t.Errorf("client first %t: %d of %d bytes, %v", clientFirst, len(got), size, err)
			}
		}
	}
	b.idle(t)
}

// D2, D8: in bulk both ways at once.
func TestBulk(t *testing.T) {
	b := newBed(t, nil, nil)
	client, guest := b.pair(t)
	data := noise(20 << 20)
	var work sync.WaitGroup
	for _, c := range []halfCloser{client, guest} {
		work.Go(func() {
			if _, err := c.Write(data); err != nil {
				t.Error(err)
			}
			c.CloseWrite()
		})
		work.Go(func() {
			sum := sha256.New()
			n, err := io.Copy(sum, c)
			if want := sha256.Sum256(data); err != nil || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("other bytes arrived, or %d of %d: %v", n, len(data), err)
			}
		})
	}
	work.Wait()
	b.idle(t)
}

// D3: a client that closes without having read everything resets the guest's end.
func TestClientResets(t *testing.T) {
	b := newBed(t, nil, nil)
	client, guest := b.pair(t)
	guest.Write([]byte("unread"))
	rc, err := client.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// Readable, so it has arrived; then close.
	rc.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return n > 0 || err != syscall.EAGAIN
	})
	client.Close()
	if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the guest sees %v", err)
	}
	b.idle(t)
}

// D3: what a guest sent before its reset arrives, and then the client has neither
// a direction to read nor one to write. ECONNRESET it sees where something of its
// own was left unread, which is as much as unix sockets can do.
func TestGuestResets(t *testing.T) {
	b := newBed(t, nil, nil)
	for _, unread := range []bool{false, true} {
		client, guest := b.pair(t)
		if unread {
			client.Write([]byte("unread"))
		}
		guest.Write([]byte("last words"))
		got := make([]byte, 10)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "last words" {
			t.Errorf("%q, %v", got, err)
		}
		guest.SetLinger(0)
		guest.Close()
		if n, err := client.Read(got); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the client reads %d bytes, %v", n, err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client's write gives %v", err)
		}
		b.idle(t)
	}
}

// deaf is a guest that has ended its direction of reading.
type deaf struct{ hybrid.Stream }

func (deaf) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// A guest that reads no more can still send, and the client learns of the first.
func TestGuestReadsNoMore(t *testing.T) {
	b := newBed(t, func(c *hybrid.Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, port uint32) (hybrid.Stream, error) {
			s, err := dial(ctx, port)
			return deaf{s}, err
		}
	}, nil)
	client, guest := b.pair(t)
	wait.Until(t, patience, "the client's writes to fail", func() bool {
		_, err := client.Write([]byte("x"))
		return errors.Is(err, syscall.EPIPE)
	})
	guest.Write([]byte("still here"))
	guest.CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "still here" || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", got, err)
	}
	client.Close()
	b.idle(t)
}

// A client that reads no more can still send, however much the guest has to say.
func TestClientReadsNoMore(t *testing.T) {
	b := newBed(t, nil, nil)
	client, guest := b.pair(t)
	client.CloseRead()
	go func() {
		guest.Write(noise(8 << 20))
		guest.CloseWrite()
	}()
	data := noise(8 << 20)
	go func() {
		if _, err := client.Write(data); err != nil {
			t.Error(err)
		}
		client.CloseWrite()
	}()
	if got, err := io.ReadAll(guest); !bytes.Equal(got, data) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
	b.idle(t)
}

// D5: a reader that stops holds up its own sender and nobody else, in bounded
// memory.
func TestStalledReader(t *testing.T) {
	b := newBed(t, nil, nil)
	for _, clientStalls := range []bool{true, false} {
		client, guest := b.pair(t)
		var sender, reader net.Conn = guest, client
		if !clientStalls {
			sender, reader = client, guest
		}
		sent := 0
		for block := make([]byte, 64<<10); ; {
			sender.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := sender.Write(block)
			sent += n
			if err != nil {
				break
			}
			if sent > 64<<20 {
				t.Fatal("the sender never stops")
			}
		}
		other, otherGuest := b.pair(t)
		data := noise(4 << 20)
		go func() {
			other.Write(data)
			other.CloseWrite()
		}()
		if got, err := io.ReadAll(otherGuest); !bytes.Equal(got, data) || err != nil {
			t.Errorf("beside a stalled reader %d of %d bytes arrive, %v", len(got), len(data), err)
		}
		other.Close()
		sender.(halfCloser).CloseWrite()
		if n, err := io.Copy(io.Discard, reader); n != int64(sent) || err != nil {
			t.Errorf("%d of %d bytes arrive in the end, %v", n, sent, err)
		}
		client.Close()
		guest.Close()
	}
	b.idle(t)
}

// The end of the server ends connections in every state, and leaves nothing.
func TestEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	dialling := make(chan struct{}, 1)
	b := newBed(t, func(c *hybrid.Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, port uint32) (hybrid.Stream, error) {
			if port == 1 {
				dialling <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return dial(ctx, port)
		}
	}, nil)
	silent := b.dial(t)
	waiting := b.dial(t)
	fmt.Fprint(waiting, "CONNECT 1\n")
	<-dialling
	idle, idleGuest := b.pair(t)
	half, halfGuest := b.pair(t)
	half.CloseWrite()
	if _, err := halfGuest.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	full, fullGuest := b.pair(t)
	full.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, err = full.Write(make([]byte, 64<<10))
	}
	wait.Until(t, patience, "all to be there", func() bool { now, _ := b.server.Conns(); return now == 5 })
	b.end()
	for _, c := range []net.Conn{silent, waiting, idle, half, full} {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a client is left: %v", err)
		}
	}
	for _, c := range []net.Conn{idleGuest, halfGuest, fullGuest} {
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a guest's end is left: %v", err)
		}
	}
	wait.Until(t, patience, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before+1 })
}
