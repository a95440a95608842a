package hybrid_test

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/hybrid"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// A client that goes leaves nothing behind, even if the guest answers nothing: not
// when it ended its direction before, and not when the guest reads nothing.
func TestClientGone(t *testing.T) {
	for _, first := range []bool{false, true} {
		b := newBed(t, nil, nil)
		client, guest := b.pair(t)
		client.Write([]byte("bye"))
		if first {
			client.CloseWrite()
			if got, err := io.ReadAll(guest); string(got) != "bye" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			// It still reads.
			guest.Write([]byte("reply"))
			if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
				t.Error(err)
			}
		}
		client.Close()
		b.idle(t)
		if got, err := io.ReadAll(guest); !first && string(got) != "bye" || err != nil {
			t.Errorf("the guest got %q, %v", got, err)
		}
	}
}

func TestClientGoneBeforeStalledGuest(t *testing.T) {
	b := newBed(t, nil, func(s *hybrid.Server) { s.SetTimes(patience, 100*time.Millisecond) })
	client, guest := b.pair(t)
	client.SetWriteDeadline(time.Now().Add(time.Second)) // several times that
	for err := error(nil); err == nil; {
		_, err = client.Write(make([]byte, 64<<10))
	}
	if now, _ := b.server.Conns(); now != 1 {
		t.Error("a client was given up for the guest's slowness")
	}
	client.Close()
	b.idle(t)
	if _, err := io.Copy(io.Discard, guest); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the guest sees %v", err)
	}
}

// Thousands of connections leave no descriptor.
func TestDescriptors(t *testing.T) {
	b := newBed(t, nil, nil)
	use := func() {
		for i := range 300 {
			client, guest := b.pair(t)
			switch i % 3 {
			case 0:
				client.Close()
			case 1:
				guest.SetLinger(0)
				guest.Close()
			case 2:
				client.CloseWrite()
				guest.Close()
			}
			client.Close()
			guest.Close()
		}
		b.idle(t)
	}
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	use()
	before := count()
	use()
	wait.Until(t, patience, "the descriptors to be closed", func() bool { return count() <= before+5 })
}
