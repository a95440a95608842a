package netstack

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

const (
	measureTime = 700 * time.Millisecond
	rounds      = 5
)

// The way through the device and the stack against plain loopback.
func TestThroughput(t *testing.T) {
	if os.Getenv("VMBRIDGE_MEASURE") == "" {
		t.Skip("set VMBRIDGE_MEASURE=1 to measure")
	}
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	accepted := make(chan net.Conn)
	b := newBed(t, func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c
	}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	control, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	t.Logf("kernel's congestion control: %s", strings.TrimSpace(string(control)))
	ways := []struct {
		name string
		to   string
	}{
		{"loopback", l.Addr().String()},
		{"tun", netip.AddrPortFrom(b.Host4, 80).String()},
	}
	for _, upward := range []bool{true, false} {
		results := map[string][]float64{}
		for range rounds {
			for _, way := range ways {
				client, err := net.Dial("tcp", way.to)
				if err != nil {
					t.Fatal(err)
				}
				server := <-accepted
				rate := 0.0
				if upward {
					rate = carry(client, server)
				} else {
					rate = carry(server, client)
				}
				results[way.name] = append(results[way.name], rate)
			}
		}
		direct, through := median(results["loopback"]), median(results["tun"])
		t.Logf("guest to host %v: loopback %.2f Gbit/s, tun %.2f Gbit/s, ratio %.3f", upward, direct, through, through/direct)
		if through < 0.3*direct {
			t.Error("less than 0.3 of plain loopback")
		}
	}
	for _, way := range ways {
		client, err := net.Dial("tcp", way.to)
		if err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		go func() { _, _ = io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{server}) }()
		var times []float64
		one := make([]byte, 1)
		for range 5000 {
			start := time.Now()
			client.Write(one)
			client.Read(one)
			times = append(times, float64(time.Since(start).Microseconds()))
		}
		t.Logf("%s: 1 byte round trip p50 %v us", way.name, median(times))
		client.Close()
		server.Close()
	}
}

func median(x []float64) float64 { x = slices.Sorted(slices.Values(x)); return x[len(x)/2] }

// carry returns Gbit/s.
func carry(from, to net.Conn) float64 {
	go func() {
		buf := make([]byte, 128<<10)
		for {
			if _, err := from.Write(buf); err != nil {
				return
			}
		}
	}()
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 128<<10)
	read := func(d time.Duration) int {
		n := 0
		for start := time.Now(); time.Since(start) < d; {
			k, err := to.Read(buf)
			if err != nil {
				panic(err)
			}
			n += k
		}
		return n
	}
	read(100 * time.Millisecond)
	start := time.Now()
	n := read(measureTime)
	return float64(n) * 8 / time.Since(start).Seconds() / 1e9
}
