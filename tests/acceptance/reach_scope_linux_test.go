package acceptance

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// hostAddresses are those that stand for the host in the guest, as its routes
// tell.
func (b *bed) hostAddresses() (addresses []netip.Addr) {
	b.t.Helper()
	must(b.t, b.guest.Do(func() error {
		device, err := netlink.LinkByName("vmbridge0")
		if err != nil {
			return err
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{LinkIndex: device.Attrs().Index, Table: unix.RT_TABLE_UNSPEC},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST || r.Dst == nil {
				continue
			}
			if ones, bits := r.Dst.Mask.Size(); ones == bits && r.Table != unix.RT_TABLE_MAIN {
				a, _ := netip.AddrFromSlice(r.Dst.IP)
				addresses = append(addresses, a.Unmap())
			}
		}
		return err
	}))
	if len(addresses) == 0 {
		b.t.Fatal("the guest has no route to the host")
	}
	return addresses
}

// F6: another namespace that the guest forwards for, and masquerades as Docker
// does, reaches the host neither by its address nor through its own localhost.
func TestF6OtherNamespaces(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	container := newNamespace(t)
	joinNamespaces(t, b.guest, guestWire, container, hostWire)
	b.startReach()
	b.routes(container)
	tcp := greet(t, here{b.host}, socket.Spec{Network: "tcp", Address: "[::]:7000"}, "host")
	udp := greet(t, here{b.host}, socket.Spec{Network: "udp", Address: "[::]:7000"}, "host")
	for _, address := range append(b.hostAddresses(), localAddresses...) {
		for _, network := range []string{"tcp", "udp"} {
			if name, err := who(b.guest, network, hostPort(address.String(), 7000)); name != "host" {
				t.Fatalf("the guest itself, %s %s: %q, %v", network, address, name, err)
			}
		}
	}
	tcp.greeted.Store(0)
	udp.greeted.Store(0)
	// Forwarding does work: what the guest serves is there.
	greet(t, here{b.guest}, socket.Spec{Network: "tcp", Address: "[::]:7001"}, "guest")
	for _, address := range []netip.Addr{guestWire.v4, guestWire.v6} {
		if name, err := who(container, "tcp", hostPort(address.String(), 7001)); name != "guest" {
			t.Fatalf("the container at the guest's %s: %q, %v", address, name, err)
		}
	}
	addresses := append(b.hostAddresses(), localAddresses...)
	for _, address := range append(addresses, guestWire.v4, guestWire.v6) {
		for _, network := range []string{"tcp", "udp"} {
			if name, err := who(container, network, hostPort(address.String(), 7000)); err == nil {
				t.Errorf("the container at %s %s meets %q", network, address, name)
			}
		}
	}
	if n := tcp.greeted.Load() + udp.greeted.Load(); n != 0 {
		t.Errorf("the host's servers had %d clients", n)
	}
}

var localAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

// routes makes the guest the router of a namespace behind its cable, with
// masquerading, and with forwarding to addresses of the loopback allowed.
func (b *bed) routes(container *netns.Namespace) {
	b.t.Helper()
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/route_localnet"} {
		must(b.t, b.guest.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0) }))
	}
	for tables, source := range map[string]string{"iptables": "192.0.2.0/24", "ip6tables": "2001:db8::/64"} {
		for _, rule := range []string{
			"-t nat -A POSTROUTING -s " + source + " -j MASQUERADE",
			"-P FORWARD ACCEPT",
		} {
			_, err := runFor(b.guest, patience, exec.Command(b.need(tables), strings.Fields(rule)...))
			if err != nil {
				b.t.Skipf("no masquerading here: %v", err)
			}
		}
	}
	for _, args := range [][]string{
		{"route", "add", "default", "via", guestWire.v4.String()},
		{"-6", "route", "add", "default", "via", guestWire.v6.String()},
	} {
		_, err := runFor(container, patience, exec.Command(b.need("ip"), args...))
		must(b.t, err)
	}
}

// F7: a server of the host that is bound to an address of its network is not
// reached, nor is the network.
func TestF7HostsNetwork(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	joinNamespaces(t, b.host, hostWire, newNamespace(t), guestWire)
	b.startReach()
	for i, bind := range []string{hostWire.v4.String(), hostWire.v6.String(), "127.8.9.10"} {
		port := 7000 + i
		b.hostEchoes(hostPort(bind, port))
		for _, network := range []string{"tcp", "udp"} {
			must(t, try(b.host, network, hostPort(bind, port)))
			for _, address := range localhosts {
				if err := closed(b.guest, network, hostPort(address, port)); err != nil {
					t.Errorf("%s server at %s, client at %s: %v", network, bind, address, err)
				}
			}
			err := try(b.guest, network, hostPort(hostWire.v4.String(), port))
			if !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s at the host's own address: %v", network, err)
			}
		}
	}
	// The wildcard is the loopback, too.
	b.hostEchoes("0.0.0.0:7100", "[::]:7101")
	for port := 7100; port <= 7101; port++ {
		must(t, try(b.guest, "tcp", fmt.Sprintf("127.0.0.1:%d", port)))
	}
}
