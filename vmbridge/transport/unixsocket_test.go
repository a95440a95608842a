//go:build unix

package transport_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// TestSocketMode holds H3: whatever the umask, only the user can connect.
func TestSocketMode(t *testing.T) {
	path := socketPath(t)
	l, err := mustParse("unix://"+path).Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

// TestStaleSocket holds G3: what a killed process left behind is no obstacle,
// a live listener and a file of the user's are.
func TestStaleSocket(t *testing.T) {
	path := socketPath(t)
	e := mustParse("unix://" + path)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	l, err := e.Listen(testContext(t), transport.ListenOptions{})
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if _, err := e.Listen(testContext(t), transport.ListenOptions{}); !errors.Is(err, transport.ErrInUse) {
		t.Errorf("over a live socket: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the live socket is gone: %v", err)
	}
	l.Close()

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Listen(testContext(t), transport.ListenOptions{}); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// TestOneListener lets many listen at once over a stale socket: one succeeds.
func TestOneListener(t *testing.T) {
	path := socketPath(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	var won atomic.Pointer[net.Listener]
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			l, err := mustParse("unix://"+path).Listen(testContext(t), transport.ListenOptions{})
			switch {
			case err == nil:
				if !won.CompareAndSwap(nil, &l) {
					t.Error("two listen on one path")
					l.Close()
				}
			case !errors.Is(err, transport.ErrInUse):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	l := won.Load()
	if l == nil {
		t.Fatal("nobody listens")
	}
	defer (*l).Close()
	c, err := mustParse("unix://"+path).Dial(testContext(t), transport.DialOptions{})
	if err != nil {
		t.Fatalf("the winner's socket is gone: %v", err)
	}
	c.Close()
}

// TestDialErrors checks that an error names the URL and the cause, once.
func TestDialErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := mustParse("unix://"+path).Dial(testContext(t), transport.DialOptions{})
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, url := range []string{"unix://" + path, "tcp://127.0.0.1:1", "exec:true"} {
		if _, err := mustParse(url).Dial(ctx, transport.DialOptions{}); err == nil {
			t.Errorf("%s: connected after the context had ended", url)
		}
	}
}

// TestRawWrite checks that the raw descriptors do not wait, and that what they
// carry is the connection's.
func TestRawWrite(t *testing.T) {
	for _, tc := range []struct {
		name string
		pair func(testing.TB) (c1, c2 net.Conn)
	}{{"unix", unixPair}, {"tcp", tcpPair}, {"exec", execPair}, {"vsock", vsockPair}, {"hybrid", hybridPair}} {
		t.Run(tc.name, func(t *testing.T) {
			c1, c2 := tc.pair(t)
			defer c1.Close()
			defer c2.Close()
			w, ok := transport.RawWrite(c1)
			if !ok {
				t.Fatal("no raw access")
			}
			total, block := 0, make([]byte, 64<<10)
			for full := false; !full; {
				err := w.Write(func(fd uintptr) bool {
					n, err := unix.Write(int(fd), block)
					if n > 0 {
						total += n
					}
					if err != nil && err != unix.EAGAIN {
						t.Error(err)
					}
					full = err != nil
					return true
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.CopyN(io.Discard, c2, int64(total)); err != nil {
				t.Fatal(err)
			}
		})
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, ok := transport.RawWrite(a); ok {
		t.Error("raw access to a connection without a descriptor")
	}
}

// alive says whether a process exists and is no zombie of ours.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
