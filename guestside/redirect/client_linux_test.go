package redirect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const port = 8080

// destinations are all that mean loopback.
var destinations = []string{"127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"}

func at8080(address string) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), port).String()
}

// calls are the ways to call each destination.
func calls(network string) (all []call) {
	for _, to := range destinations {
		c := call{Network: network, To: at8080(to)}
		all = append(all, c)
		if to == "::1" || to == "::" {
			c.OnlyV6 = true
			all = append(all, c)
		}
	}
	return all
}

// TestHost holds F1 and F8: what nobody in the guest serves reaches the host, and
// the program sees the same addresses as from a server of the guest's own.
func TestHost(t *testing.T) {
	for _, network := range []string{"tcp", "udp", "sendto"} {
		t.Run(network, func(t *testing.T) {
			b := newBed(t)
			protocol := map[string]string{"tcp": "tcp", "udp": "udp", "sendto": "udp"}[network]
			b.serveHost(protocol, port)
			native := b.guest.serve(t, "guest", protocol, fmt.Sprintf("[::]:%d", port))
			seen := map[call]result{}
			for _, c := range calls(network) {
				seen[c] = b.guest.expect(t, c, "guest")
			}
			native.close()
			if network != "sendto" { // which is told of no errors
				for c := range seen {
					b.guest.expect(t, c, "ECONNREFUSED")
				}
			}
			b.attach(both)
			for c, want := range seen {
				got := b.guest.expect(t, c, "host")
				if got.Peer != want.Peer || got.Local.Addr() != want.Local.Addr() {
					t.Errorf("%+v: %v, want the names in %v", c, got, want)
				}
				if a := got.Seen.Unmap(); a != both.Guest4 && a != both.Guest6 {
					t.Errorf("%+v: the host saw %v", c, got.Seen)
				}
			}
		})
	}
}

// TestGuestFirst holds F3: as long as any loopback address of the guest has a
// server on the port, every call goes as it goes without us. It is answered by
// that server or refused, and never by the host.
func TestGuestFirst(t *testing.T) {
	for _, network := range []string{"tcp", "mptcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			b := newBed(t)
			protocol := strings.TrimPrefix(network, "mp")
			b.serveHost(protocol, port)
			a := b.attach(both)
			for _, v := range []struct{ network, address string }{
				{network, "127.0.0.1"}, {network, "0.0.0.0"}, {network, "::1"}, {network, "::"},
				{network + "6", "::"}, {network, "::ffff:127.0.0.1"}, {network, "::ffff:0.0.0.0"},
			} {
				s := b.guest.serve(t, "guest", v.network, at8080(v.address))
				a.must("detach", nil)
				native := map[call]result{}
				for _, c := range calls(protocol) {
					native[c] = b.guest.ask(t, c)
				}
				a.must("attach", both)
				for c, want := range native {
					if got := b.guest.ask(t, c); got.Who != want.Who || got.Peer != want.Peer || got.Who == "host" {
						t.Errorf("server on %s %s, %+v: %v, want %v", v.network, v.address, c, got, want)
					}
				}
				s.close()
			}
		})
	}
}

// TestNotServedAtHome holds that sockets which get nothing that is sent to
// loopback do not keep calls from the host: other addresses, other protocols,
// clients, and sockets that are bound only.
func TestNotServedAtHome(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.serveHost("udp", port)
	b.attach(both)
	for _, v := range []struct{ network, address, ask string }{
		{"tcp", "127.0.0.2", "tcp"}, {"tcp", both.Guest4.String(), "tcp"}, {"tcp", both.Guest6.String(), "tcp"}, {"udp", "::", "tcp"},
		{"udp", "127.0.0.2", "udp"}, {"udp", both.Guest4.String(), "udp"}, {"tcp", "::", "udp"},
	} {
		s := b.guest.serve(t, "guest", v.network, at8080(v.address))
		for _, c := range calls(v.ask) {
			b.guest.expect(t, c, "host")
		}
		s.close()
	}
	// The server on Guest4 keeps its name: it has nothing to do with the host.
	if err := b.guest.do(func() error {
		f, err := bound("tcp", at8080(both.Guest4.String()))
		if err != nil {
			return err
		}
		defer f.Close()
		if sa, err := unix.Getsockname(int(f.Fd())); err != nil || addrPort(sa).Addr() != both.Guest4 {
			t.Errorf("a server on %v has the name %v, %v", both.Guest4, addrPort(sa), err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestOtherDestinations holds that what is not localhost is nothing to us: the
// rest of 127/8, the guest's other addresses, port 0.
func TestOtherDestinations(t *testing.T) {
	b := newBed(t)
	b.unplug() // what went to the host would never be refused
	b.attach(both)
	for _, to := range []string{"127.0.0.2", "127.1.0.1", both.Guest4.String(), both.Guest6.String(), "::ffff:127.0.0.2"} {
		b.guest.expect(t, call{Network: "tcp", To: at8080(to)}, "ECONNREFUSED")
	}
	b.guest.expect(t, call{Network: "tcp", To: "127.0.0.1:0"}, "ECONNREFUSED")
	b.guest.expect(t, call{Network: "sendto", To: "127.0.0.1:0"}, "EINVAL")
}

// TestSwitch holds F4: a server comes and goes on either side, and the very next
// call goes right.
func TestSwitch(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			b := newBed(t)
			b.attach(both)
			addresses := []string{"127.0.0.1", "::1", "0.0.0.0", "::"}
			hosts := b.serveHost(network, port)
			for i := range 50 {
				to := at8080([]string{"127.0.0.1", "::1", "::ffff:127.0.0.1"}[i%3])
				c := call{Network: network, To: to}
				own := at8080(addresses[i%len(addresses)])
				b.guest.expect(t, c, "host")
				guest := b.guest.serve(t, "guest", network, at8080("::"))
				b.guest.expect(t, c, "guest")
				guest.close()
				b.guest.expect(t, c, "host")
				for _, h := range hosts {
					h.close()
				}
				b.guest.expect(t, c, "ECONNREFUSED")
				guest = b.guest.serve(t, "guest", network, own)
				if got := b.guest.ask(t, call{Network: network, To: own}); got.Who != "guest" {
					t.Errorf("server on %s: answer of %s", own, got.Who)
				}
				hosts = b.serveHost(network, port)
				if got := b.guest.ask(t, c); got.Who == "host" {
					t.Errorf("server on %s: %s is answered by the host", own, c.To)
				}
				guest.close()
			}
		})
	}
}

// TestOneFamily holds that a family without a host address stays at home, while
// the other is carried in all its forms.
func TestOneFamily(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.serveHost("udp", port)
	for _, cfg := range []Config{{Host4: both.Host4, Guest4: both.Guest4}, {Host6: both.Host6, Guest6: both.Guest6}} {
		a := b.attach(cfg)
		for _, network := range []string{"tcp", "udp", "sendto"} {
			for _, c := range calls(network) {
				native := strings.HasPrefix(c.To, "[::]") || strings.HasPrefix(c.To, "[::1]")
				want := "host"
				if native != cfg.Host6.IsValid() {
					want = "ECONNREFUSED"
				}
				if network == "sendto" && want != "host" {
					continue // it is told of no errors
				}
				b.guest.expect(t, c, want)
			}
		}
		a.must("detach", nil)
	}
}
