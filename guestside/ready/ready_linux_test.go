package ready_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/guestside/ready"
	"github.com/vmbridge/vmbridge/tests/wait"
)

func TestReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(path, []byte("left behind"), 0o644); err != nil {
		t.Fatal(err)
	}
	socket, err := ready.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	done := make(chan error, 1)
	go func() { done <- socket.Wait(t.Context()) }()
	// Other states of systemd's protocol are no end of the wait.
	other, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Write([]byte("STATUS=READY=1\nMAINPID=1\n")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(ready.Variable, path)
	if err := ready.Tell(); err != nil {
		t.Fatal(err)
	}
	if err := wait.For(t, 10*time.Second, "READY=1", done); err != nil {
		t.Error(err)
	}
}

func TestWaitEnds(t *testing.T) {
	socket, err := ready.Listen(filepath.Join(t.TempDir(), "ready"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := socket.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestNobodyAsks: an agent that is started by hand, or again by its service when
// nobody waits any more, is none the worse.
func TestNobodyAsks(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	deaf := filepath.Join(t.TempDir(), "deaf")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: deaf, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // a datagram socket's file stays
	if _, err := os.Lstat(deaf); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", gone, deaf} {
		t.Setenv(ready.Variable, path)
		if err := ready.Tell(); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	t.Setenv(ready.Variable, "/dev/null")
	if err := ready.Tell(); err != nil { // no socket at all: ECONNREFUSED
		t.Errorf("%v", err)
	}
}
