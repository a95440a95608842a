package udpbatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

const deadline = 20 * time.Second

// listen opens a socket or skips the test where the family is missing.
func listen(t testing.TB, network, addr string) *net.UDPConn {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(context.Background(), network, addr)
	if err != nil {
		t.Skipf("no %s socket at %s: %v", network, addr, err)
	}
	c := pc.(*net.UDPConn)
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

func dial(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

func batched(t testing.TB, c *net.UDPConn, opts udpbatch.Options) *udpbatch.Conn {
	t.Helper()
	b, err := udpbatch.New(c, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// serve runs fn on every batch until the socket is closed; the test's end
// waits for it.
func serve(t testing.TB, raw *net.UDPConn, c *udpbatch.Conn, fn func([]udpbatch.Datagram)) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		for {
			if err := c.ReadBatch(fn); err != nil {
				done <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		raw.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadBatch ended with %v, want net.ErrClosed", err)
		}
	})
}

// echo answers every datagram from the address that it came to.
func echo(t testing.TB, raw *net.UDPConn, opts udpbatch.Options) {
	t.Helper()
	c := batched(t, raw, opts)
	serve(t, raw, c, func(ds []udpbatch.Datagram) {
		if n, err := c.WriteBatch(ds); n != len(ds) || err != nil {
			t.Errorf("WriteBatch sent %d of %d: %v", n, len(ds), err)
		}
	})
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(7*i + i>>8)
	}
	return b
}

var sizes = []int{0, 1, 1472, 1473, 9000, 32768, 32769, 65507}

// TestSizes holds E2: every size keeps its boundaries, on both families and on
// unconnected, connected and dual-stack sockets.
func TestSizes(t *testing.T) {
	for _, tc := range []struct {
		name, network, listen, reach string
		packetInfo                   bool
	}{
		{"v4", "udp4", "127.0.0.1:0", "127.0.0.1", false},
		{"v6", "udp6", "[::1]:0", "::1", false},
		{"v4 wildcard", "udp4", "0.0.0.0:0", "127.0.0.1", true},
		{"v6 wildcard", "udp6", "[::]:0", "::1", true},
		{"dual-stack by v4", "udp", "[::]:0", "127.0.0.1", true},
		{"dual-stack by v6", "udp", "[::]:0", "::1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := listen(t, tc.network, tc.listen)
			echo(t, raw, udpbatch.Options{PacketInfo: tc.packetInfo})
			to := netip.AddrPortFrom(netip.MustParseAddr(tc.reach), addrOf(raw).Port())
			plain := dial(t, to)
			buf := make([]byte, 1<<16)
			for _, size := range sizes {
				if _, err := plain.Write(pattern(size)); err != nil {
					t.Fatal(err)
				}
				n, err := plain.Read(buf)
				if err != nil {
					t.Fatalf("size %d: %v", size, err)
				}
				if !bytes.Equal(buf[:n], pattern(size)) {
					t.Fatalf("sent %d bytes, got %d or other bytes", size, n)
				}
			}
			client := batched(t, dial(t, to), udpbatch.Options{Connected: true})
			for _, size := range sizes {
				if n, err := client.WriteBatch([]udpbatch.Datagram{{Payload: pattern(size)}}); n != 1 || err != nil {
					t.Fatalf("size %d: sent %d, %v", size, n, err)
				}
				err := client.ReadBatch(func(ds []udpbatch.Datagram) {
					if len(ds) != 1 || !bytes.Equal(ds[0].Payload, pattern(size)) || ds[0].Peer != to {
						t.Errorf("size %d: %d datagrams, the first %d bytes from %v", size, len(ds), len(ds[0].Payload), ds[0].Peer)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestRuns sends mixtures that are coalesced into segmented sends and checks
// that every datagram arrives whole and in order (E2).
func TestRuns(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			host := "127.0.0.1:0"
			if network == "udp6" {
				host = "[::1]:0"
			}
			in, out := listen(t, network, host), listen(t, network, host)
			if err := in.SetReadBuffer(4 << 20); err != nil {
				t.Fatal(err)
			}
			r, w := batched(t, in, udpbatch.Options{}), batched(t, out, udpbatch.Options{})
			for _, lens := range [][]int{
				{200, 200, 200, 200},
				{200, 200, 100, 200, 0, 0, 200, 200},
				{1, 1, 1, 2, 2, 1, 3},
				{0, 5, 5, 0},
				{32500, 32500, 32500, 32500, 1},
				{65507, 65507, 1472, 1472, 1472},
				{1473, 1473, 9000, 9000, 8999, 9000},
				repeat(200, 64), repeat(1400, 64), repeat(200, 65), repeat(1000, 130),
			} {
				ds := make([]udpbatch.Datagram, len(lens))
				for i, l := range lens {
					p := pattern(l)
					if l > 0 {
						p[0] = byte(i)
					}
					ds[i] = udpbatch.Datagram{Payload: p, Peer: addrOf(in)}
				}
				if n, err := w.WriteBatch(ds); n != len(ds) || err != nil {
					t.Fatalf("%v: sent %d, %v", lens, n, err)
				}
				for got := 0; got < len(ds); {
					err := r.ReadBatch(func(rs []udpbatch.Datagram) {
						for _, d := range rs {
							if got < len(ds) && !bytes.Equal(d.Payload, ds[got].Payload) {
								t.Errorf("%v: datagram %d has %d bytes, want %d, or other bytes", lens, got, len(d.Payload), len(ds[got].Payload))
							}
							if d.Peer != addrOf(out) {
								t.Errorf("from %v, want %v", d.Peer, addrOf(out))
							}
							got++
						}
					})
					if err != nil {
						t.Fatalf("%v: after %d of %d: %v", lens, got, len(ds), err)
					}
				}
			}
		})
	}
}

func repeat(size, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = size
	}
	return s
}

// TestReplyAddress holds E1: a wildcard socket replies from the address that
// it was asked at.
func TestReplyAddress(t *testing.T) {
	for _, tc := range []struct{ network, listen string }{{"udp4", "0.0.0.0:0"}, {"udp", "[::]:0"}} {
		t.Run(tc.network, func(t *testing.T) {
			raw := listen(t, tc.network, tc.listen)
			echo(t, raw, udpbatch.Options{PacketInfo: true})
			for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3"} {
				client := listen(t, "udp4", "127.0.0.1:0") // unconnected: sees who replies
				to := netip.AddrPortFrom(netip.MustParseAddr(host), addrOf(raw).Port())
				if _, err := client.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
					t.Skipf("this system has no %s: %v", host, err)
				}
				buf := make([]byte, 16)
				n, from, err := client.ReadFromUDPAddrPort(buf)
				if err != nil || string(buf[:n]) != "hello" {
					t.Fatalf("%s: %q, %v", host, buf[:n], err)
				}
				if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != to {
					t.Errorf("asked %v, %v replied", to, from)
				}
			}
		})
	}
}

// TestManyPeers holds E1: many clients at once, every reply to its own, with
// one small pool for all sockets.
func TestManyPeers(t *testing.T) {
	pool := udpbatch.NewPool(2)
	raw := listen(t, "udp", "[::]:0")
	raw.SetReadBuffer(4 << 20)
	echo(t, raw, udpbatch.Options{PacketInfo: true, Pool: pool})
	var wg sync.WaitGroup
	for i := range 200 {
		host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if i%2 == 1 {
			host = netip.IPv6Loopback()
		}
		c := dial(t, netip.AddrPortFrom(host, addrOf(raw).Port()))
		b := batched(t, c, udpbatch.Options{Connected: true, Pool: pool})
		wg.Go(func() {
			for round := range 20 {
				want := fmt.Sprintf("client %d round %d", i, round)
				if n, err := b.WriteBatch([]udpbatch.Datagram{{Payload: []byte(want)}}); n != 1 || err != nil {
					t.Errorf("%s: sent %d, %v", want, n, err)
					return
				}
				var got string
				err := b.ReadBatch(func(ds []udpbatch.Datagram) { got = string(ds[0].Payload) })
				if err != nil || got != want {
					t.Errorf("sent %q, got %q, %v", want, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
