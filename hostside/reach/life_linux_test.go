package reach

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// talks checks that a client of greet has an echo.
func talks(t *testing.T, c *net.TCPConn) error {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	buf := make([]byte, 1)
	for {
		if _, err := io.ReadFull(c, buf); err != nil || buf[0] == 'x' {
			return err
		}
	}
}

// A policy cuts the flows that it forbids, connected ones and those that are still
// being dialled, and no others.
func TestPolicyCuts(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	for _, at := range []string{"127.0.0.1:80", "127.0.0.1:81"} {
		greet(t, at)
		echoUDP(t, at)
	}
	blackHole(t, 9)
	b := newBed(t, nil)
	stays, goes := b.dial(t, "127.0.0.1:80"), b.dial(t, "127.0.0.1:81")
	stays2, goes2 := b.openUDP(t, "127.0.0.1:80"), b.openUDP(t, "127.0.0.1:81")
	for _, f := range []*udpFlow{stays2, goes2} {
		f.send("hello")
		if got := f.outcome(t); got != "hello" {
			t.Fatal(got)
		}
	}
	_, dialled := b.begin(t, "127.0.0.1:9")
	for _, c := range []*net.TCPConn{stays, goes} {
		if err := talks(t, c); err != nil {
			t.Fatal(err)
		}
	}
	b.SetPolicy(Policy{Enabled: true, Deny: []forward.PortRule{{First: 81, Last: 81}, {First: 9, Last: 9}}})
	if code := wait.For(t, patience, "the end of the dial", dialled); code != wire.CodeDenied {
		t.Errorf("the dial ends with %s", code)
	}
	if code := wait.For(t, patience, "the end of the denied UDP flow", goes2.ended); code != wire.CodeDenied {
		t.Errorf("it ends with %s", code)
	}
	if err := talks(t, goes); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the denied connection: %v, want a reset", err)
	}
	if err := talks(t, stays); err != nil {
		t.Errorf("the allowed connection: %v", err)
	}
	stays2.send("again")
	if got := stays2.outcome(t); got != "again" {
		t.Errorf("the allowed UDP flow: %q", got)
	}
	for _, p := range b.Ports() {
		want, flows := Open, int64(1)
		if p.Port != 80 {
			want, flows = Denied, 0
		}
		if p.State != want || p.Flows != flows {
			t.Errorf("%s %d is listed as %s with %d flows, want %s with %d", p.Protocol, p.Port, p.State, p.Flows, want, flows)
		}
	}
}

// Close ends everything: what is connected, what is being dialled, and what waits
// for its turn; nothing is left of it, and newcomers are refused.
func TestClose(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:80")
	echoUDP(t, "127.0.0.1:80")
	blackHole(t, 9)
	b := newBed(t, nil)
	b.dial(t, "127.0.0.1:80").Close() // the first connection makes things that stay
	wait.Until(t, patience, "the first flow ends", func() bool { return b.port(message.TCP, 80).Flows == 0 })
	files, goroutines := descriptors(t), runtime.NumGoroutine()
	var clients []*net.TCPConn
	for range 20 {
		clients = append(clients, b.dial(t, "127.0.0.1:80"))
		f := b.openUDP(t, "127.0.0.1:80")
		f.send("hello")
		if got := f.outcome(t); got != "hello" {
			t.Fatal(got)
		}
		b.openUDP(t, "127.0.0.1:80") // one that never says anything
	}
	var dials []<-chan wire.Code
	for range 2 * maxDialsPerPort {
		_, answer := b.begin(t, "127.0.0.1:9")
		dials = append(dials, answer)
	}
	wait.Until(t, patience, "the dials are under way", func() bool { return b.port(message.TCP, 9).Flows == 2*maxDialsPerPort })
	b.Reach.Close()
	b.Reach.Close()
	for _, answer := range dials {
		if code := wait.For(t, patience, "the end of a dial", answer); code != wire.CodeShutdown {
			t.Fatalf("a dial ends with %s", code)
		}
	}
	for _, c := range clients {
		if err := talks(t, c); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a connection: %v, want a reset", err)
		}
		c.Close()
	}
	wait.Until(t, patience, "descriptors are closed", func() bool { return descriptors(t) <= files })
	wait.Until(t, patience, "goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	if _, code := b.ask(t, "127.0.0.1:80"); code != wire.CodeShutdown {
		t.Errorf("a newcomer: %s", code)
	}
	for _, p := range b.Ports() {
		if p.Flows != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// A guest that scans the ports fills nothing, and does not push out what it is
// using.
func TestScan(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:80")
	b := newBed(t, nil)
	used := b.dial(t, "127.0.0.1:80")
	var answers []<-chan wire.Code
	for port := range 3 * maxPorts {
		_, answer := b.begin(t, fmt.Sprintf("127.0.0.1:%d", 10000+port))
		answers = append(answers, answer)
	}
	for _, answer := range answers {
		if code := wait.For(t, patience, "an answer", answer); code != wire.CodeRefused {
			t.Fatalf("answered %s", code)
		}
	}
	if n := len(b.Ports()); n != maxPorts {
		t.Errorf("%d ports are remembered, the limit is %d", n, maxPorts)
	}
	if p := b.port(message.TCP, 80); p.Flows != 1 {
		t.Errorf("%+v", p)
	}
	if err := talks(t, used); err != nil {
		t.Error(err)
	}
}

// Flows, policies and servers that come and go at once leave nothing behind; the
// race detector looks on.
func TestEverythingAtOnce(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:80")
	echoUDP(t, "[::1]:80")
	var owned atomic.Bool
	b := newBed(t, func(c *Config) { c.Own = func(message.Protocol, netip.AddrPort) bool { return owned.Load() } })
	stop := make(chan struct{})
	var changes, flows sync.WaitGroup
	changes.Go(func() {
		on := []Policy{{Enabled: true}, {}, {Enabled: true, Deny: []forward.PortRule{{Protocol: message.UDP, First: 80, Last: 80}}}}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			b.SetPolicy(on[i%len(on)])
			owned.Store(i%5 == 0)
			b.Ports()
		}
	})
	for i := range 4 {
		flows.Go(func() {
			for range 300 {
				if i%2 == 0 {
					b.tryUDP(t, "127.0.0.1:80", "hello")
				} else if stream, code := b.ask(t, "127.0.0.1:80"); code == 0 {
					stream.Abort()
				}
			}
		})
	}
	flows.Wait()
	close(stop)
	changes.Wait()
	b.SetPolicy(Policy{Enabled: true})
	owned.Store(false)
	if got := b.tryTCP(t, "127.0.0.1:80"); got != "127.0.0.1:80" {
		t.Errorf("afterwards: %q", got)
	}
	if got := b.tryUDP(t, "127.0.0.1:80", "hello"); got != "hello" {
		t.Errorf("afterwards: %q", got)
	}
	wait.Until(t, patience, "nothing is left", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.flows) == 0 && b.guest0().kept.Load() == 0
	})
	for _, p := range b.Ports() {
		if p.Flows != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// A guest cannot have more flows than there is room for: what exceeds it is told
// so, and there is room again when others have ended.
func TestMaxFlows(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	greet(t, "127.0.0.1:8000")
	b := newBed(t, func(c *Config) { c.maxFlows = 3 })
	var streams []*link.Stream
	for range 3 {
		stream, code := b.ask(t, "127.0.0.1:8000")
		if code != 0 {
			t.Fatal(code)
		}
		streams = append(streams, stream)
	}
	if _, code := b.ask(t, "127.0.0.1:8000"); code != wire.CodeResources {
		t.Errorf("one more: got %v", code)
	}
	if code := wait.For(t, patience, "the end of one more", b.openUDP(t, "127.0.0.1:8000").ended); code != wire.CodeResources {
		t.Errorf("one more, of UDP: got %v", code)
	}
	streams[0].Abort()
	wait.Until(t, patience, "room for another", func() bool {
		stream, code := b.ask(t, "127.0.0.1:8000")
		if code == 0 {
			stream.Abort()
		}
		return code == 0
	})
}
