package udpbatch_test

import (
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

// smallMTU puts the test's goroutine into a network namespace of its own,
// whose loopback has the MTU of an Ethernet.
func smallMTU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("no network namespaces: %v", err)
	}
	ns, err := netns.New() // and enter
	if err != nil {
		home.Close()
		runtime.UnlockOSThread()
		t.Skipf("no network namespace of our own: %v", err)
	}
	t.Cleanup(func() {
		// A thread that cannot go back must not serve other goroutines.
		if err := netns.Set(home); err == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
		ns.Close()
	})
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetMTU(lo, 1500)
	}
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSmallMTU holds E2 where runs of datagrams cannot be segments: those longer
// than the MTU travel one by one, as fragments, and later ones are not tried as
// segments again.
func TestSmallMTU(t *testing.T) {
	smallMTU(t)
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		in, out := listen(t, "udp", host), listen(t, "udp", host)
		if err := in.SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		var soft []error
		r := batched(t, in, udpbatch.Options{})
		w := batched(t, out, udpbatch.Options{SoftError: func(err error) { soft = append(soft, err) }})
		for _, lens := range [][]int{repeat(1400, 20), repeat(9000, 5), repeat(1400, 20), {9000, 9000, 200, 200, 200}} {
			ds := make([]udpbatch.Datagram, len(lens))
			for i, l := range lens {
				ds[i] = udpbatch.Datagram{Payload: pattern(l), Peer: addrOf(in)}
			}
			if n, err := w.WriteBatch(ds); n != len(ds) || err != nil {
				t.Fatalf("%s: %v: sent %d, %v", host, lens, n, err)
			}
			for got := 0; got < len(ds); {
				if err := r.ReadBatch(func(rs []udpbatch.Datagram) {
					for _, d := range rs {
						if string(d.Payload) != string(ds[got].Payload) {
							t.Errorf("%s: %v: datagram %d has %d bytes", host, lens, got, len(d.Payload))
						}
						got++
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(soft) > 0 {
			t.Errorf("%s: soft errors: %v", host, soft)
		}
		if limit := w.SegmentLimit(); limit < 1400 || limit >= 9000 {
			t.Errorf("%s: segments of up to %d bytes, want the MTU", host, limit)
		}
	}
}
