package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

const (
	deadline = 20 * time.Second
	// childEnv makes the test binary a command of an exec endpoint.
	childEnv = "VMBRIDGE_TRANSPORT_CHILD"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(childEnv); to != "" {
		if err := child(to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child serves stdio: and passes everything on to a unix socket.
func child(to string) error {
	l, err := mustParse("stdio:").Listen(context.Background(), transport.ListenOptions{})
	if err != nil {
		return err
	}
	in, err := l.Accept()
	if err != nil {
		return err
	}
	out, err := mustParse("unix://"+to).Dial(context.Background(), transport.DialOptions{})
	if err != nil {
		return err
	}
	var once sync.WaitGroup
	once.Add(1)
	var first sync.Once
	for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			_, _ = io.Copy(p[0], p[1]) // either end may just have closed
			first.Do(once.Done)
		}()
	}
	once.Wait()
	_ = in.Close()
	_ = out.Close()
	if _, err := l.Accept(); err != io.EOF {
		return fmt.Errorf("second Accept: %v, want EOF", err)
	}
	return nil
}

func mustParse(s string) transport.Endpoint {
	e, err := transport.Parse(s)
	if err != nil {
		panic(err)
	}
	return e
}

func needShell(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil || runtime.GOOS == "windows" {
		t.Skip("the commands are for a Unix shell")
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// socketPath is shorter than t.TempDir, which may exceed what a socket can have.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// pair connects both ends of an endpoint.
func pair(ctx context.Context, l net.Listener, dial transport.Endpoint) (c1, c2 net.Conn, err error) {
	type accepted struct {
		c   net.Conn
		err error
	}
	ch := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		ch <- accepted{c, err}
	}()
	c1, err = dial.Dial(ctx, transport.DialOptions{})
	if err != nil {
		l.Close()
		<-ch
		return nil, nil, err
	}
	a := <-ch
	return c1, a.c, a.err
}

func unixPair(t testing.TB) (c1, c2 net.Conn) {
	t.Helper()
	e := mustParse("unix://" + socketPath(t))
	l, err := e.Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c1, c2, err = pair(testContext(t), l, e); err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

// execEndpoint runs this test binary, which connects to path.
func execEndpoint(t testing.TB, path string) transport.Endpoint {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The race detector would sleep for a second before the child exits.
	return mustParse(fmt.Sprintf("exec:GORACE=atexit_sleep_ms=0 %s='%s' '%s'", childEnv, path, self))
}

// execPair is a command's standard input and output, and the unix socket that
// the command passes them on to.
func execPair(t testing.TB) (c1, c2 net.Conn) {
	t.Helper()
	path := socketPath(t)
	l, err := mustParse("unix://"+path).Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c1, c2, err = pair(testContext(t), l, execEndpoint(t, path)); err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

func tcpPair(t testing.TB) (c1, c2 net.Conn) {
	t.Helper()
	l, err := mustParse("tcp://127.0.0.1:0").Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c1, c2, err = pair(testContext(t), l, mustParse("tcp://"+l.Addr().String())); err != nil {
		t.Fatal(err)
	}
	return c1, c2
}

// TestConn runs the conformance test for connections on every transport.
func TestConn(t *testing.T) {
	for _, tc := range []struct {
		name string
		pair func(testing.TB) (c1, c2 net.Conn)
	}{
		{"unix", unixPair},
		{"tcp", tcpPair},
		{"exec", execPair},
		{"exec reversed", func(t testing.TB) (net.Conn, net.Conn) { c1, c2 := execPair(t); return c2, c1 }},
		{"vsock", vsockPair},
		{"hybrid", hybridPair},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.HasPrefix(tc.name, "exec") {
				needShell(t)
			}
			if tc.name == "vsock" {
				c1, c2 := vsockPair(t) // skips here, not in every subtest
				c1.Close()
				c2.Close()
			}
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = tc.pair(t)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

// TestLargeTransfer moves 10 MiB each way at once (D2, D8).
func TestLargeTransfer(t *testing.T) {
	for _, tc := range []struct {
		name string
		pair func(testing.TB) (c1, c2 net.Conn)
	}{{"unix", unixPair}, {"tcp", tcpPair}, {"exec", execPair}, {"vsock", vsockPair}, {"hybrid", hybridPair}} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "exec" {
				needShell(t)
			}
			c1, c2 := tc.pair(t)
			defer c1.Close()
			defer c2.Close()
			data := make([]byte, 10<<20)
			for i := range data {
				data[i] = byte(i >> 3)
			}
			var wg sync.WaitGroup
			for _, c := range []net.Conn{c1, c2} {
				c.SetDeadline(time.Now().Add(deadline))
				wg.Go(func() {
					if _, err := c.Write(data); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					got := make([]byte, len(data))
					if _, err := io.ReadFull(c, got); err != nil {
						t.Error(err)
					} else if string(got) != string(data) {
						t.Error("other bytes arrived")
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestCloseUnblocks checks that Close ends a read and a write that wait.
func TestCloseUnblocks(t *testing.T) {
	needShell(t)
	c1, c2 := execPair(t)
	defer c2.Close()
	errs := make(chan error, 2)
	full := make(chan struct{})
	go func() {
		_, err := c1.Read(make([]byte, 1))
		errs <- err
	}()
	go func() {
		// The write deadline tells that the pipe is full; then wait for good.
		c1.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		for {
			if _, err := c1.Write(make([]byte, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
		c1.SetWriteDeadline(time.Time{})
		close(full)
		_, err := c1.Write(make([]byte, 1<<20))
		errs <- err
	}()
	<-full
	if err := c1.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want net.ErrClosed", err)
			}
		case <-time.After(deadline):
			t.Fatal("still waiting after Close")
		}
	}
	if err := c1.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
