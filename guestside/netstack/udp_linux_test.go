package netstack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// echoed is a bed that sends every datagram back, but for port 9, which is
// unreachable.
func echoed(t *testing.T) *bed {
	t.Helper()
	var b *bed
	ready := make(chan struct{})
	b = newBed(t, nil, func(from, to netip.AddrPort, payload []byte) {
		<-ready
		if to.Port() == 9 {
			if err := b.PortUnreachable(from, to); err != nil {
				t.Error(err)
			}
			return
		}
		if err := b.SendUDP(to, from, [][]byte{payload}); err != nil {
			t.Error(err)
		}
	})
	close(ready)
	return b
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i * 7)
	}
	return p
}

// Datagrams of every size go both ways, each as one.
func TestDatagrams(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := echoed(t)
	for _, host := range b.hosts(t) {
		for _, size := range []int{0, 1, 1472, 1473, 9000, 32768, 65487, 65507, 65527} {
			if host.Is4() && size > 65507 {
				continue // more than IPv4 can carry
			}
			t.Run(fmt.Sprintf("%v/%d", host, size), func(t *testing.T) {
				c, err := net.Dial("udp", netip.AddrPortFrom(host, 53).String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(pattern(size)); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 1<<16)
				n, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:n], pattern(size)) {
					t.Errorf("got %d bytes, %v", n, err)
				}
			})
		}
		if err := b.SendUDP(netip.AddrPortFrom(host, 53), netip.AddrPortFrom(b.guest(host), 1), [][]byte{make([]byte, 65528)}); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("datagram of 65528 bytes: %v, want EMSGSIZE", err)
		}
	}
}

func (b *bed) guest(host netip.Addr) netip.Addr {
	if host.Is4() {
		return b.Guest4
	}
	return b.Guest6
}

// A port that nobody serves is unreachable for a connected client (F2).
func TestPortUnreachable(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	b := echoed(t)
	locals := map[netip.Addr][]*net.UDPAddr{
		b.Host4: {nil, {IP: net.IPv4(127, 0, 0, 1)}},
	}
	for _, host := range b.hosts(t) {
		if locals[host] == nil {
			locals[host] = []*net.UDPAddr{nil}
		}
		for _, local := range locals[host] {
			c, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 9)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("anybody?")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v from %v: %v, want ECONNREFUSED", host, c.LocalAddr(), err)
			}
		}
	}
}

// Clients that are bound to an address of the IPv4 loopback work (F10).
func TestBoundToLoopback(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 9, 8, 7)} {
		p := newPairs(t)
		client, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: patience}).Dial("tcp", netip.AddrPortFrom(p.Host4, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server := <-p.accepted
		defer server.Close()
		if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Errorf("client is %s, want %s", got, want)
		}
		if _, err := server.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		p.close(t)

		b := echoed(t)
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: ip}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.Host4, 53)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 9)
		if n, err := c.Read(got); err != nil || string(got[:n]) != "hello" {
			t.Errorf("read %q, %v", got[:n], err)
		}
		b.close(t)
	}
}
