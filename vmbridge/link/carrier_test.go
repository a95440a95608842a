package link_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/tests/hybriddouble"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// carrier is how the bytes of a test's link cross.
type carrier struct {
	name        string
	conns       int
	hideSockets bool // the sockets of flows have no descriptor
	open        func(testing.TB) way
}

// way is an open carrier.
type way struct {
	listener net.Listener // nil: dialling starts the guest, in a process of its own
	dial     func(context.Context) (net.Conn, error)
	key      []byte
}

// carriers are all the transports, and one that has no descriptors at all: what
// Windows makes of every transport.
func carriers() []carrier {
	return []carrier{
		unixCarrier(2),
		{name: "tcp", conns: 2, open: func(t testing.TB) way { return endpointWay(t, "tcp://127.0.0.1:0") }},
		{name: "exec", conns: 1, open: execWay},
		{name: "vsock", conns: 2, open: vsockWay},
		{name: "hybrid", conns: 2, open: hybridWay},
		memoryCarrier(2),
	}
}

func unixCarrier(conns int) carrier {
	return carrier{name: "unix", conns: conns, open: func(t testing.TB) way {
		return endpointWay(t, "unix://"+filepath.Join(t.TempDir(), "link.sock"))
	}}
}

func memoryCarrier(conns int) carrier {
	return carrier{name: "memory", conns: conns, hideSockets: true, open: func(testing.TB) way {
		l := newMemoryListener()
		return way{listener: l, dial: l.dial, key: testKey}
	}}
}

// endpointWay listens on a link URL.
func endpointWay(t testing.TB, url string) way {
	t.Helper()
	e, err := transport.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Listen(t.Context(), transport.ListenOptions{AnyContextID: true})
	if err != nil {
		if e.Scheme() == transport.VSock {
			// Dialling would not tell: without a loopback it asks the hypervisor.
			t.Skipf("AF_VSOCK has no loopback here (modprobe vsock_loopback): %v", err)
		}
		t.Fatal(err)
	}
	if e.Scheme() == transport.TCP { // the system chose the port
		if e, err = transport.Parse("tcp://" + l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	return way{l, func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, transport.DialOptions{}) }, testKey}
}

// hybridWay reaches a unix socket through a double of Firecracker.
func hybridWay(t testing.TB) way {
	t.Helper()
	guest := filepath.Join(t.TempDir(), "guest.sock")
	w := endpointWay(t, "unix://"+guest)
	e, err := transport.Parse("hybrid://" + hybriddouble.Start(t, map[uint32]string{732: guest}) + "?port=732")
	if err != nil {
		t.Fatal(err)
	}
	w.dial = func(ctx context.Context) (net.Conn, error) { return e.Dial(ctx, transport.DialOptions{}) }
	return w
}

// vsockWay listens on CID 1, the loopback, and nowhere else.
func vsockWay(t testing.TB) way {
	return endpointWay(t, fmt.Sprintf("vsock://1:%d", 1<<20+rand.IntN(1<<30)))
}

// guestArgument makes the test binary a guest that speaks on its standard input
// and output.
const guestArgument = "guest-on-stdio"

func execWay(t testing.TB) way {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := transport.Parse(fmt.Sprintf(`exec:"%s" %s`, self, guestArgument))
	if err != nil {
		t.Fatal(err)
	}
	return way{dial: func(ctx context.Context) (net.Conn, error) {
		return e.Dial(ctx, transport.DialOptions{Stderr: func(line string) { t.Log("guest:", line) }})
	}}
}

func TestMain(m *testing.M) {
	if len(os.Args) != 2 || os.Args[1] != guestArgument {
		os.Exit(m.Run())
	}
	if err := serveStdio(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveStdio() error {
	e, err := transport.Parse("stdio:")
	if err != nil {
		return err
	}
	ctx := context.Background()
	l, err := e.Listen(ctx, transport.ListenOptions{})
	if err != nil {
		return err
	}
	defer l.Close()
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	return link.NewServer(link.Config{Name: "stdio guest", Handler: newEnd(), Log: quietLog()}).ServeConn(ctx, nc)
}

// memoryListener connects within this process, without descriptors or buffers.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newMemoryListener() *memoryListener {
	l := &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	host, guest := net.Pipe()
	select {
	case l.conns <- guest:
		return host, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: os.ErrNotExist}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { l.close(); return nil }
func (l *memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }
