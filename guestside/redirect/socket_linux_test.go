package redirect

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBound holds F10: clients bound to IPv4 loopback reach the host, in either
// form; clients bound to ::1 or to a device behave as without us.
func TestBound(t *testing.T) {
	for _, network := range []string{"tcp", "udp", "sendto"} {
		t.Run(network, func(t *testing.T) {
			b := newBed(t)
			protocol := "udp"
			if network == "tcp" {
				protocol = "tcp"
			}
			b.serveHost(protocol, port)
			b.attach(both)
			for _, c := range []struct{ bind, to, peer string }{
				{"127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
				{"127.0.0.1:0", "0.0.0.0", "127.0.0.1"},
				{"0.0.0.0:4567", "127.0.0.1", "127.0.0.1"},
				{"[::ffff:127.0.0.1]:0", "::ffff:127.0.0.1", "::ffff:127.0.0.1"},
				{"[::ffff:127.0.0.1]:4568", "::", "::ffff:127.0.0.1"},
				{"[::]:4569", "::1", "::1"},
				{"[::]:4570", "::ffff:127.0.0.1", "::ffff:127.0.0.1"},
				{both.Guest6.String(), "::1", "::1"},
			} {
				if a, err := netip.ParseAddr(c.bind); err == nil {
					c.bind = netip.AddrPortFrom(a, 4571).String()
				}
				r := b.guest.expect(t, call{Network: network, To: at8080(c.to), Bind: c.bind}, "host")
				if r.Peer.Addr() != netip.MustParseAddr(c.peer) {
					t.Errorf("%+v: peer %v", c, r.Peer)
				}
				from := netip.MustParseAddrPort(c.bind)
				if from.Addr().Unmap() == netip.MustParseAddr("127.0.0.1") && r.Local.Addr() != from.Addr() {
					t.Errorf("%+v: local address %v", c, r.Local)
				}
			}
			if network == "sendto" {
				return // a refusal would not show
			}
			for _, c := range []call{
				{To: at8080("::1"), Bind: "[::1]:0"},
				{To: at8080("::"), Bind: "[::1]:0"},
				{To: at8080("127.0.0.1"), Device: "lo"},
				{To: at8080("::1"), Device: "lo"},
			} {
				c.Network = network
				b.guest.expect(t, c, "ECONNREFUSED")
			}
			b.guest.serve(t, "guest", protocol, at8080("::1"))
			b.guest.expect(t, call{Network: network, To: at8080("::1"), Bind: "[::1]:0"}, "guest")
		})
	}
}

// TestTimeWait holds that a connection in TIME_WAIT does not hide the listener
// from the client that had it, and now makes the same one again.
func TestTimeWait(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.attach(both)
	for i, to := range []string{"127.0.0.1", "::1"} {
		l := b.guest.serve(t, "guest", "tcp", at8080(to))
		// The server ends connections first, so the TIME_WAIT has the tuple that a
		// look-up with the client's port would ask for.
		from := netip.AddrPortFrom(netip.MustParseAddr(to), uint16(5000+i)).String()
		if to == "::1" {
			from = "[::]:5001"
		}
		for range 5 {
			b.guest.expect(t, call{Network: "tcp", To: at8080(to), Bind: from}, "guest")
		}
		l.close()
	}
}

// TestKinds holds that every way to make a connection goes right: MPTCP, by
// sending (TCP fast open), and without waiting.
func TestKinds(t *testing.T) {
	b := newBed(t)
	b.serveHost("tcp", port)
	b.attach(both)
	mptcp := true
	if err := b.guest.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if err != nil {
			mptcp = false
			return nil
		}
		return unix.Close(fd)
	}); err != nil {
		t.Fatal(err)
	}
	kinds := []call{{FastOpen: true}, {NonBlocking: true}}
	if mptcp {
		kinds = append(kinds, call{MPTCP: true})
	}
	seen := map[call]result{}
	for _, who := range []string{"host", "guest", "host"} {
		var s *server
		if who == "guest" {
			s = b.guest.serve(t, "guest", "tcp", at8080("::"))
		}
		for _, c := range kinds {
			for _, to := range destinations {
				c.Network, c.To = "tcp", at8080(to)
				r := b.guest.expect(t, c, who)
				before, ok := seen[c]
				if ok && (before.Peer != r.Peer || before.Local.Addr() != r.Local.Addr()) {
					t.Errorf("%+v: %v of one server, %v of another", c, before, r)
				}
				seen[c] = r
			}
		}
		if s != nil {
			s.close()
		}
	}
}

// TestTwoPorts holds F8 for one unconnected UDP socket that talks to a server on
// either side, and to both again: each answer comes from where it was sent.
func TestTwoPorts(t *testing.T) {
	const hostPort, guestPort = 7001, 7002
	for _, loopback := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		t.Run(loopback, func(t *testing.T) {
			b := newBed(t)
			b.serveHost("udp", hostPort)
			b.guest.serve(t, "guest", "udp", netip.AddrPortFrom(netip.MustParseAddr(loopback), guestPort).String())
			b.attach(both)
			err := b.guest.do(func() error {
				c := call{Network: "sendto", To: at8080(loopback)}
				fd, err := c.open()
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				for i := range 20 {
					who, port := "host", uint16(hostPort)
					if i%2 == 1 {
						who, port = "guest", guestPort
					}
					to := netip.AddrPortFrom(netip.MustParseAddr(loopback), port)
					sa, _ := sockaddr(to.String())
					if err := unix.Sendto(fd, []byte("?"), 0, sa); err != nil {
						return err
					}
					var r result
					if err := r.read(fd, false); err != nil {
						return err
					}
					if r.Who != who || r.Peer != to {
						t.Errorf("to %v: answer of %s from %v", to, r.Who, r.Peer)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestReplies holds what the delivery of UDP depends on: a guest server's answer
// to a connected socket on loopback, of the agent or of anybody, stays in the
// guest, from whatever address of the server's.
func TestReplies(t *testing.T) {
	b := newBed(t)
	// What went to the host would have an answer too.
	b.serveHost("udp", port)
	a := b.attach(both)
	for _, v := range []struct{ network, address string }{
		{"udp", "127.0.0.1"}, {"udp", "0.0.0.0"}, {"udp", "::1"}, {"udp", "::"}, {"udp6", "::"}, {"udp", "::ffff:127.0.0.1"},
	} {
		s := b.guest.serve(t, "guest", v.network, at8080(v.address))
		only6 := v.network == "udp6"
		for _, to := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
			served := v.address == to || v.address == "::" && !only6 || v.address == "::" && to == "::1" ||
				v.address != "::1" && v.address != "::" && to != "::1"
			if !served {
				continue
			}
			c := call{Network: "udp", To: at8080(to)}
			b.guest.expect(t, c, "guest")
			if got := a.command("ask", c); got[:5] != "guest" {
				t.Errorf("server on %s, agent to %s: %s", v.address, to, got)
			}
			c.Bind = netip.AddrPortFrom(netip.MustParseAddr(to), 6000).String()
			b.guest.expect(t, c, "guest")
		}
		s.close()
	}
}
