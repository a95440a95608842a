package redirect

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace. It lives while its file is open.
type space struct{ file *os.File }

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		s.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Skip("no network namespace:", err)
	}
	t.Cleanup(func() { s.file.Close() })
	return s
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(done)
		done <- f()
	}()
	err, ok := <-done
	if !ok {
		return errors.New("a fatal failure on a thread")
	}
	return err
}

// do runs f on a thread inside the namespace.
func (s *space) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// netlink configures the namespace.
func (s *space) netlink(t testing.TB) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(s.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *space) sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := s.do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// both are the addresses of the bed's agents.
var both = Config{
	Host4: netip.MustParseAddr("169.254.7.1"), Guest4: netip.MustParseAddr("169.254.7.2"),
	Host6: netip.MustParseAddr("fd5b:7::1"), Guest6: netip.MustParseAddr("fd5b:7::2"),
}

// bed is a guest and a host joined by a cable instead of the agent's device and
// network stack: the host address is an address of the host.
type bed struct {
	t           testing.TB
	guest, host *space
}

func newBed(t testing.TB) *bed {
	t.Helper()
	b := &bed{t: t, guest: newSpace(t), host: newSpace(t)}
	guest, host := b.guest.netlink(t), b.host.netlink(t)
	defer guest.Close()
	defer host.Close()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("make the cable", guest.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable"},
		PeerName: "cable", PeerNamespace: netlink.NsFd(b.host.file.Fd())}))
	up := func(h *netlink.Handle, name string, addresses ...netip.Addr) netlink.Link {
		l, err := h.LinkByName(name)
		check("find "+name, err)
		for _, a := range addresses {
			bits := 30
			if a.Is6() {
				bits = 64
			}
			check("add "+a.String(), h.AddrAdd(l, &netlink.Addr{Flags: unix.IFA_F_NODAD,
				IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}))
		}
		check("set up "+name, h.LinkSetUp(l))
		return l
	}
	up(guest, "lo")
	end := up(guest, "cable", both.Guest4, both.Guest6)
	peer := up(host, "cable", both.Host4, both.Host6)
	// Finding a neighbour on a new link may take IPv6 a second.
	neighbour := func(h *netlink.Handle, on, to netlink.Link, address netip.Addr) {
		check("add a neighbour", h.NeighAdd(&netlink.Neigh{LinkIndex: on.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: address.AsSlice(), HardwareAddr: to.Attrs().HardwareAddr}))
	}
	neighbour(guest, end, peer, both.Host6)
	neighbour(host, peer, end, both.Guest6)
	// A client bound to 127.0.0.1 keeps that as its source. The host's own
	// loopback is down, so that answers may leave.
	b.guest.sysctl(t, "ipv4/conf/cable/route_localnet", "1")
	b.host.sysctl(t, "ipv4/conf/cable/route_localnet", "1")
	// Every closed port is to be told of.
	b.host.sysctl(t, "ipv4/icmp_ratelimit", "0")
	b.host.sysctl(t, "ipv6/icmp/ratelimit", "0")
	check("route back", host.RouteAdd(&netlink.Route{LinkIndex: peer.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}}))
	return b
}

// unplug makes the host as silent as a host that is gone.
func (b *bed) unplug() {
	b.t.Helper()
	h := b.host.netlink(b.t)
	defer h.Close()
	l, err := h.LinkByName("cable")
	if err == nil {
		err = h.LinkSetDown(l)
	}
	if err != nil {
		b.t.Fatal("unplug the cable:", err)
	}
}

// attach starts an agent in the guest that attaches the programs.
func (b *bed) attach(cfg Config) *agent {
	b.t.Helper()
	a := startAgent(b.t, b.guest, nil)
	if answer := a.command("attach", cfg); answer != "" {
		if os.Getuid() != 0 {
			b.t.Skip(answer)
		}
		b.t.Fatal(answer)
	}
	return a
}
