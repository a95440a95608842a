package udpbatch_test

import (
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

// TestNoAllocation sends and receives without garbage.
func TestNoAllocation(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		host := "127.0.0.1:0"
		if network == "udp6" {
			host = "[::1]:0"
		}
		in, out := listen(t, network, host), listen(t, network, host)
		pool := udpbatch.NewPool(1)
		r := batched(t, in, udpbatch.Options{PacketInfo: true, Pool: pool})
		w := batched(t, out, udpbatch.Options{Pool: pool})
		ds := make([]udpbatch.Datagram, 8)
		for i := range ds {
			ds[i] = udpbatch.Datagram{Payload: pattern(100 + i/4), Peer: addrOf(in), Local: addrOf(out).Addr()}
		}
		got := 0
		fn := func(ds []udpbatch.Datagram) { got += len(ds) }
		allocs := testing.AllocsPerRun(100, func() {
			if n, err := w.WriteBatch(ds); n != len(ds) || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
			for got = 0; got < len(ds); {
				if err := r.ReadBatch(fn); err != nil {
					t.Fatal(err)
				}
			}
		})
		// The garbage collector may empty the sync.Pool of senders in between.
		if allocs >= 1 {
			t.Errorf("%s: %v allocations per batch", network, allocs)
		}
	}
}

// TestMemoryIsLent checks that waiting readers hold nothing (I4), and that the
// pages of large datagrams are given back.
func TestMemoryIsLent(t *testing.T) {
	pool := udpbatch.NewPool(2)
	asked := make(chan struct{}, 100)
	for range 100 {
		raw := listen(t, "udp4", "127.0.0.1:0")
		c := batched(t, raw, udpbatch.Options{Pool: pool})
		serve(t, raw, c, func(ds []udpbatch.Datagram) {
			if lent, _ := pool.Held(); lent < 1 || lent > 2 {
				t.Errorf("%d arenas lent by a pool of 2", lent)
			}
			asked <- struct{}{}
		})
		peer := dial(t, addrOf(raw))
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		<-asked
	}
	wait.Until(t, deadline, "every arena given back", func() bool { lent, _ := pool.Held(); return lent == 0 })

	in, out := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	if err := in.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	r, w := batched(t, in, udpbatch.Options{Pool: pool}), batched(t, out, udpbatch.Options{Pool: pool})
	large := udpbatch.Datagram{Payload: pattern(udpbatch.MaxPayload), Peer: addrOf(in)}
	for range 10 {
		for range 20 {
			if n, err := w.WriteBatch([]udpbatch.Datagram{large}); n != 1 || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
		}
		if err := r.ReadBatch(func(ds []udpbatch.Datagram) {
			for _, d := range ds {
				if string(d.Payload) != string(large.Payload) {
					t.Error("a large datagram is not what was sent")
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, resident := pool.Held(); resident > 2*udpbatch.KeepResident {
		t.Errorf("idle arenas keep %d bytes", resident)
	}
}
