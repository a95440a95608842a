//go:build unix

package hybrid_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/hybrid"
	"github.com/vmbridge/vmbridge/tests/wait"
)

const (
	patience = 20 * time.Second
	hostPort = 1 << 30
)

// bed is a server and a guest whose ports are TCP ports of this machine.
type bed struct {
	server *hybrid.Server
	path   string
	guest  *net.TCPListener
	end    func() // and wait
}

// tcpStream is a stream to such a guest. TCP has resets.
type tcpStream struct{ *net.TCPConn }

func (tcpStream) HostPort() uint32 { return hostPort }

// Close lets the guest have what was written. TCP itself would throw that away
// where something was left unread, so that is read.
func (s tcpStream) Close() error {
	f, err := s.File()
	if err != nil {
		return err // closed before
	}
	rest, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	rest.(*net.TCPConn).CloseWrite()
	go func() {
		rest.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, rest)
		rest.Close()
	}()
	return s.TCPConn.Close()
}

func (s tcpStream) Abort() error {
	return errors.Join(s.SetLinger(0), s.TCPConn.Close())
}

// newBed changes what it likes of the configuration and the server.
func newBed(t testing.TB, change func(*hybrid.Config), prepare func(*hybrid.Server)) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bed{path: filepath.Join(dir, "s")}
	if b.guest, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	config := hybrid.Config{Dial: func(ctx context.Context, port uint32) (hybrid.Stream, error) {
		if port != 732 {
			return nil, fmt.Errorf("nobody listens on port %d", port)
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", b.guest.Addr().String())
		if err != nil {
			return nil, err
		}
		return tcpStream{c.(*net.TCPConn)}, nil
	}}
	if change != nil {
		change(&config)
	}
	b.server = hybrid.New(config)
	if prepare != nil {
		prepare(b.server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.server.Serve(ctx, l) }()
	ended := false
	b.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := wait.For(t, patience, "Serve to return", done); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		b.guest.Close()
		b.end()
	})
	return b
}

// dial connects to the server without a word.
func (b *bed) dial(t testing.TB) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// ask sends a request and gives everything that comes back.
func (b *bed) ask(t testing.TB, request string) string {
	t.Helper()
	c := b.dial(t)
	io.WriteString(c, request) // which may find it closed, with the reply there to read
	reply, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q: %v", request, err)
	}
	return string(reply)
}

// pair connects a client to the guest.
func (b *bed) pair(t testing.TB) (client *net.UnixConn, guest *net.TCPConn) {
	t.Helper()
	client = b.dial(t)
	fmt.Fprint(client, "CONNECT 732\n")
	b.guest.SetDeadline(time.Now().Add(patience))
	guest, err := b.guest.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	guest.SetDeadline(time.Now().Add(patience))
	// The guest is silent yet, so a reader that reads ahead loses nothing.
	if line, err := bufio.NewReader(client).ReadString('\n'); line != fmt.Sprintf("OK %d\n", hostPort) {
		t.Fatalf("%q, %v", line, err)
	}
	return client, guest
}

// idle waits until the server has no connections.
func (b *bed) idle(t testing.TB) {
	t.Helper()
	wait.Until(t, patience, "all connections to end", func() bool {
		now, _ := b.server.Conns()
		return now == 0
	})
}
