package vhostvsock

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// newCross connects the guests' sides of two devices: a driver passes on what
// one device says to the other. So a connection has a device at each end.
func newCross(t testing.TB) (a, b *Device) {
	t.Helper()
	a, pathA := newDevice(t)
	b, pathB := newDevice(t)
	left, right := newFrontend(t, pathA), newFrontend(t, pathB)
	done := make(chan struct{}, 4)
	for _, f := range []*frontend{left, right} {
		f.negotiate()
		for _, r := range f.rings {
			r.events = true
		}
		f.startRings(allFeatures)
	}
	for _, way := range [][2]*frontend{{left, right}, {right, left}} {
		from, to := way[0].rings[toGuest], way[1].rings[toHost]
		for range ringSize / 2 {
			from.put([]int{100, 6000}, nil)
		}
		go func() {
			defer func() { done <- struct{}{} }()
			from.serve(func(b []byte) {
				from.put([]int{100, 6000}, nil)
				var h header
				h.decode((*[headerBytes]byte)(b))
				h.sourceCID, h.destinationCID = testCID, hostCID
				h.encode((*[headerBytes]byte)(b))
				to.put(raggedSplit(len(b)), b)
			})
		}()
		go func() {
			defer func() { done <- struct{}{} }()
			to.serve(func([]byte) {})
		}()
	}
	t.Cleanup(func() {
		for _, f := range []*frontend{left, right} {
			for _, r := range f.rings {
				r.call.Close()
				r.stop()
			}
		}
		for range cap(done) {
			wait.For(t, limit, "the drivers to end", done)
		}
	})
	return a, b
}

// TestConn: connections are what the net package says they are.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := newCross(t)
		l, err := b.Listen(1)
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = a.Dial(t.Context(), 1)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("dial: %w", err)
		}
		c2, err = l.Accept()
		return c1, c2, func() {
			c1.Close()
			c2.Close()
		}, err
	})
}
