package netstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// blackHole holds the SYNs for ports below 10 and refuses the others.
func blackHole(t *testing.T) (b *bed, held *atomic.Int64) {
	held = new(atomic.Int64)
	release := make(chan struct{})
	b = newBed(t, func(r *Request) {
		if r.Destination().Port() >= 10 {
			r.Refuse()
			return
		}
		held.Add(1)
		<-release
		r.Ignore()
	}, nil)
	t.Cleanup(func() { close(release) })
	return b, held
}

// begin starts to connect n times, without waiting for the answer.
func begin(t *testing.T, to netip.AddrPort, n int) {
	t.Helper()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		if !errors.Is(err, unix.EINPROGRESS) {
			t.Fatalf("connect: %v", err)
		}
	}
}

// A thousand dials into a black hole delay nobody, and there is a bound on what
// waits, for one port and in all.
func TestBlackHole(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	moreDescriptors(t)
	b, held := blackHole(t)
	begin(t, netip.AddrPortFrom(b.Host4, 1), maxHalfOpenPerPort+200)
	wait.Until(t, patience, "the bound of one port", func() bool { return held.Load() == maxHalfOpenPerPort })

	var slowest atomic.Int64
	var dialing sync.WaitGroup
	for range 8 {
		dialing.Go(func() {
			for range 50 {
				start := time.Now()
				c, err := net.Dial("tcp", netip.AddrPortFrom(b.Host4, 80).String())
				if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("another port: %v, want ECONNREFUSED", err)
					if err == nil {
						c.Close()
					}
					return
				}
				for took := int64(time.Since(start)); took > slowest.Load(); {
					slowest.Store(took)
				}
			}
		})
	}
	dialing.Wait()
	t.Logf("slowest of 400 refusals meanwhile: %v", time.Duration(slowest.Load()))
	if time.Duration(slowest.Load()) > 500*time.Millisecond {
		t.Error("another port was delayed")
	}
	if n := held.Load(); n != maxHalfOpenPerPort {
		t.Errorf("%d requests for one port, want %d", n, maxHalfOpenPerPort)
	}

	for port := uint16(2); port <= 5; port++ {
		begin(t, netip.AddrPortFrom(b.Host4, port), maxHalfOpenPerPort)
	}
	wait.Until(t, patience, "the bound of all ports", func() bool { return held.Load() == maxHalfOpen })
}

// moreDescriptors makes sure of descriptors for all the clients of a flood.
func moreDescriptors(t *testing.T) {
	t.Helper()
	const enough = maxHalfOpen + maxHalfOpenPerPort + 1024
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if limit.Cur = limit.Max; err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil || limit.Max < enough {
		t.Skipf("cannot have %d descriptors: the limit is %d (%v)", enough, limit.Max, err)
	}
}

// A client never runs out of ports, whoever closes first, and no SYN meets
// something that makes it go lost.
func TestConnectionsInARow(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	count := 100_000
	if testing.Short() || raceEnabled {
		count = 40_000 // more than there are ports for
	}
	for _, clientFirst := range []bool{true, false} {
		var through atomic.Int64
		b := newBed(t, func(r *Request) {
			defer through.Add(1)
			c, err := r.Accept()
			if err != nil {
				t.Errorf("client closes first: %v: %v", clientFirst, err)
				return
			}
			defer c.Close()
			if clientFirst {
				_, _ = c.Read(make([]byte, 1))
			}
		}, nil)
		to := netip.AddrPortFrom(b.Host4, 80).String()
		start, lost, slowest := time.Now(), synsSentAgain(t), time.Duration(0)
		one := make([]byte, 1)
		for i := range count {
			dialed := time.Now()
			c, err := net.Dial("tcp", to)
			if err != nil {
				t.Fatalf("client closes first: %v: connection %d: %v", clientFirst, i, err)
			}
			slowest = max(slowest, time.Since(dialed))
			if !clientFirst {
				_, _ = c.Read(one)
			}
			c.Close()
		}
		t.Logf("client closes first: %v: %d connections in %v, the slowest in %v", clientFirst, count, time.Since(start), slowest)
		if n := synsSentAgain(t) - lost; n > 0 {
			t.Errorf("client closes first: %v: %d SYNs were lost", clientFirst, n)
		}
		// The client has connected before its last handshake is through here.
		wait.Until(t, patience, "all requests are through", func() bool { return through.Load() == int64(count) })
		b.close(t)
	}
}

// synsSentAgain is how often a client of this network namespace has repeated a
// SYN, because no answer came for a second.
func synsSentAgain(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines[:len(lines)-1] {
		column := slices.Index(strings.Fields(line), "TCPSynRetrans")
		if column < 0 {
			continue
		}
		n, err := strconv.Atoi(strings.Fields(lines[i+1])[column])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Skip("the kernel does not count repeated SYNs")
	return 0
}
