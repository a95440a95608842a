package udpbatch_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

// TestMain lets the benchmark run its flood as a process of its own.
func TestMain(m *testing.M) {
	if to := os.Getenv("UDPBATCH_FLOOD"); to != "" {
		flood(netip.MustParseAddrPort(to))
	}
	os.Exit(m.Run())
}

// flood sends 200-byte datagrams, one system call each, until it is killed.
func flood(to netip.AddrPort) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		panic(err)
	}
	for p := make([]byte, 200); ; {
		_, _ = c.Write(p) // refused before the relay listens
	}
}

// BenchmarkRelay times how long 1000 datagrams of a flood take to arrive
// behind a relay.
func BenchmarkRelay(b *testing.B) {
	for _, kind := range []string{"plain", "batch", "segments"} {
		b.Run(kind, func(b *testing.B) { benchmarkRelay(b, kind) })
	}
}

func benchmarkRelay(b *testing.B, kind string) {
	in, sink := listen(b, "udp4", "127.0.0.1:0"), listen(b, "udp4", "127.0.0.1:0")
	out := dial(b, addrOf(sink))
	for _, c := range []*net.UDPConn{in, sink, out} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
	pool := udpbatch.NewPool(0)
	if kind == "plain" {
		done := make(chan struct{})
		b.Cleanup(func() { in.Close(); <-done })
		go func() {
			defer close(done)
			buf := make([]byte, 1<<16)
			for {
				n, _, err := in.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = out.Write(buf[:n])
			}
		}()
	} else {
		w := batched(b, out, udpbatch.Options{Connected: true, Pool: pool})
		if kind == "batch" {
			w.DisableSegments()
		}
		serve(b, in, batched(b, in, udpbatch.Options{Pool: pool}), func(ds []udpbatch.Datagram) { _, _ = w.WriteBatch(ds) })
	}

	thousands := make(chan struct{}, 1<<16)
	var got, batches int
	serve(b, sink, batched(b, sink, udpbatch.Options{Pool: pool}), func(ds []udpbatch.Datagram) {
		batches++
		for range ds {
			if got++; got%1000 == 0 {
				select {
				case thousands <- struct{}{}:
				default:
				}
			}
		}
	})

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UDPBATCH_FLOOD="+addrOf(in).String())
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
	}()
	<-thousands // it runs
	start, n := time.Now(), 0
	for b.Loop() {
		<-thousands
		n += 1000
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "datagrams/s")
}
