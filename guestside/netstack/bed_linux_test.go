package netstack

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/vmbridge/vmbridge/guestside/tun"
)

// bed is a stack on a real device, in this process's network namespace.
type bed struct {
	*Stack
	tun.Addresses
	device *tun.Device
	once   sync.Once
}

// newBed starts a stack. handle answers requests, nil refuses them.
func newBed(t testing.TB, handle func(*Request), udp func(from, to netip.AddrPort, payload []byte)) *bed {
	t.Helper()
	device, err := tun.Open(tun.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if handle == nil {
		handle = (*Request).Refuse
	}
	if udp == nil {
		udp = func(netip.AddrPort, netip.AddrPort, []byte) {}
	}
	a := device.Addresses()
	s, err := New(Config{
		Device: device.File(), MTU: tun.MTU, Host4: a.Host4, Host6: a.Host6, TCP: handle, UDP: udp,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Stack: s, Addresses: a, device: device}
	t.Cleanup(func() { b.close(t) })
	return b
}

func (b *bed) close(t testing.TB) {
	t.Helper()
	b.once.Do(func() {
		if err := errors.Join(b.Stack.Close(), b.device.Close()); err != nil {
			t.Error(err)
		}
	})
}

// hosts are the host addresses to test.
func (b *bed) hosts(t testing.TB) []netip.Addr {
	if b.NoIPv6 != nil {
		t.Log("without IPv6:", b.NoIPv6)
		return []netip.Addr{b.Host4}
	}
	return []netip.Addr{b.Host4, b.Host6}
}

func dial(t testing.TB, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}
