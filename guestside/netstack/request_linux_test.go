package netstack

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// A client that was refused may try again at once, from the same port, and is
// refused again (F2).
func TestRefusedAgain(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := newBed(t, nil, nil)
	before := synsSentAgain(t)
	for range 20_000 {
		if err := connectFrom(5000, netip.AddrPortFrom(b.Host4, 80)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("%v, want ECONNREFUSED", err)
		}
	}
	if n := synsSentAgain(t) - before; n > 0 {
		t.Errorf("%d SYNs were lost", n)
	}
}

func connectFrom(port int, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// A handshake that begins while the stack closes does not hold it up.
func TestAcceptWhileClosing(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	const late = 81
	held, closing := make(chan struct{}), make(chan struct{})
	b := newBed(t, func(r *Request) {
		if r.Destination().Port() == late {
			close(held)
			<-closing
		}
		c, err := r.Accept()
		if err != nil {
			t.Log(err)
			return
		}
		// The end of this connection says that the stack is closing, and has made
		// its list of what there is to end.
		_, _ = c.Read(make([]byte, 1))
		close(closing)
		c.Close()
	}, nil)
	dial(t, netip.AddrPortFrom(b.Host4, 80))
	begin(t, netip.AddrPortFrom(b.Host4, late), 1)
	<-held
	start := time.Now()
	b.close(t)
	if took := time.Since(start); took > patience {
		t.Errorf("closing took %v", took)
	}
}
