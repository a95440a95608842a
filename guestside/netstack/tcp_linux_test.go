package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// pairs makes connected pairs of a kernel client and a Conn.
type pairs struct {
	*bed
	accepted chan *Conn
}

func newPairs(t testing.TB) *pairs {
	p := &pairs{accepted: make(chan *Conn)}
	done := make(chan struct{})
	p.bed = newBed(t, func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		select {
		case p.accepted <- c:
		case <-done:
			c.Close()
		}
	}, nil)
	t.Cleanup(func() { close(done) })
	return p
}

func (p *pairs) connect(t testing.TB, host netip.Addr) (*net.TCPConn, *Conn) {
	t.Helper()
	client := dial(t, netip.AddrPortFrom(host, 80))
	select {
	case c := <-p.accepted:
		t.Cleanup(func() { c.Close() })
		for _, conn := range []net.Conn{client, c} {
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
		}
		return client, c
	case <-time.After(patience):
		t.Fatal("the connection was not accepted")
		return nil, nil
	}
}

// A connection behaves as one of the kernel's, on both ends (F1).
func TestConformance(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	for _, host := range p.hosts(t) {
		for _, order := range []string{"client first", "stack first"} {
			t.Run(host.String()+" "+order, func(t *testing.T) {
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					client, err := net.Dial("tcp", netip.AddrPortFrom(host, 80).String())
					if err != nil {
						return nil, nil, nil, err
					}
					server := <-p.accepted
					stop := func() { client.Close(); server.Close() }
					if order == "client first" {
						return client, server, stop, nil
					}
					return server, client, stop, nil
				})
			})
		}
	}
}

// What one side sends arrives whole, and each direction ends by itself (F1).
func TestHalfClose(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	for _, host := range p.hosts(t) {
		for range 10 {
			client, server := p.connect(t, host)
			for _, way := range []struct{ from, to half }{{client, server}, {server, client}} {
				sent := make(chan error, 1)
				go func() {
					_, err := way.from.Write(payload)
					sent <- errors.Join(err, way.from.CloseWrite())
				}()
				got, err := io.ReadAll(way.to)
				if err != nil || !bytes.Equal(got, payload) {
					t.Fatalf("got %d bytes, error %v, want %d", len(got), err, len(payload))
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

type half interface {
	io.ReadWriter
	CloseWrite() error
}

// A reset after the end of the client's data is heard of, and an orderly end is
// none (D3 in this direction).
func TestWaitReset(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	for _, host := range p.hosts(t) {
		for _, reset := range []bool{true, false} {
			client, server := p.connect(t, host)
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(server); len(got) > 0 || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			heard := make(chan error, 1)
			go func() { heard <- server.WaitReset() }()
			want := error(net.ErrClosed)
			if reset {
				want = syscall.ECONNRESET
				if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := server.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(client); err != nil {
					t.Fatal(err)
				}
				if err := server.Close(); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-heard:
				if !errors.Is(err, want) {
					t.Errorf("reset %v: got %v, want %v", reset, err, want)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("reset %v: nothing was heard", reset)
			}
		}
	}
}

// A reset of either side reaches the other, after the bytes before it.
func TestReset(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	type end interface {
		net.Conn
		SetLinger(int) error
	}
	for _, host := range p.hosts(t) {
		for _, test := range []string{"client", "stack", "client with unread data", "stack with unread data"} {
			t.Run(host.String()+" "+test, func(t *testing.T) {
				client, server := p.connect(t, host)
				breaker, other := end(client), end(server)
				if test[0] == 's' {
					breaker, other = server, client
				}
				if _, err := breaker.Write([]byte("last")); err != nil {
					t.Fatal(err)
				}
				last := make([]byte, 4)
				if _, err := io.ReadFull(other, last); err != nil || string(last) != "last" {
					t.Fatalf("read %q, %v", last, err)
				}
				if test == "client" || test == "stack" {
					if err := breaker.SetLinger(0); err != nil {
						t.Fatal(err)
					}
				} else {
					if _, err := other.Write([]byte("unread")); err != nil {
						t.Fatal(err)
					}
					// One byte says that the rest is there.
					if _, err := breaker.Read(last[:1]); err != nil {
						t.Fatal(err)
					}
				}
				if err := breaker.Close(); err != nil {
					t.Fatal(err)
				}
				if n, err := other.Read(last); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("read %d bytes, error %v, want ECONNRESET", n, err)
				}
			})
		}
	}
}

// Both directions of a Conn know of a reset, whichever asks first.
func TestResetIsRemembered(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	client, server := p.connect(t, p.Host4)
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for range 2 {
		if _, err := server.Read(one); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want ECONNRESET", err)
		}
		if _, err := server.Write(one); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v, want ECONNRESET", err)
		}
	}
}

// A refused connection is refused at once (F2).
func TestRefuse(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t, (*Request).Refuse, nil)
	for _, host := range b.hosts(t) {
		var times []time.Duration
		for range 1000 {
			start := time.Now()
			c, err := net.Dial("tcp", netip.AddrPortFrom(host, 81).String())
			times = append(times, time.Since(start))
			if !errors.Is(err, syscall.ECONNREFUSED) {
				if c != nil {
					c.Close()
				}
				t.Fatalf("%v, want ECONNREFUSED", err)
			}
		}
		slices.Sort(times)
		p50, p99 := times[len(times)/2], times[len(times)*99/100]
		t.Logf("%v refused after %v (p50), %v (p99)", host, p50, p99)
		if p99 > 100*time.Millisecond {
			t.Errorf("%v: p99 of a refusal is %v", host, p99)
		}
	}
}

// A client that gave up while its SYN was held is no connection.
func TestAcceptAfterTheClientLeft(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	requests, results := make(chan *Request), make(chan error)
	answer := make(chan struct{})
	b := newBed(t, func(r *Request) {
		requests <- r
		<-answer
		c, err := r.Accept()
		if err == nil {
			c.Close()
		}
		results <- err
	}, nil)
	d := net.Dialer{Timeout: 50 * time.Millisecond}
	dialed := make(chan error, 1)
	go func() {
		c, err := d.Dial("tcp", netip.AddrPortFrom(b.Host4, 80).String())
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	r := <-requests
	if want := netip.AddrPortFrom(b.Host4, 80); r.Destination() != want || r.Source().Addr() != b.Guest4 {
		t.Errorf("request from %v to %v, want from %v to %v", r.Source(), r.Destination(), b.Guest4, want)
	}
	var timeout net.Error
	if err := <-dialed; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("dial: %v, want a timeout: the SYN is held", err)
	}
	close(answer)
	select {
	case err := <-results:
		if err == nil {
			t.Error("a client that left was accepted")
		}
		t.Log(err)
	case <-time.After(patience):
		t.Error("accept hangs")
	}
}

// Close ends connections, requests and their calls, and can be repeated.
func TestClose(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	client, server := p.connect(t, p.Host4)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	one := make([]byte, 1)
	if _, err := server.Read(one); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read of the stack's end: %v, want an error", err)
	}
	if _, err := client.Read(one); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read of the client's end: %v, want ECONNRESET", err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("not done after Close")
	}
}
