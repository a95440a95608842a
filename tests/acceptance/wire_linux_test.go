package acceptance

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
)

// wireEnd is one end of a cable between two namespaces.
type wireEnd struct {
	device string
	v4, v6 netip.Addr
}

var (
	hostWire  = wireEnd{"wire0", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	guestWire = wireEnd{"wire1", netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
)

// joinNamespaces lays a cable between two namespaces.
func joinNamespaces(t testing.TB, a *netns.Namespace, endA wireEnd, b *netns.Namespace, endB wireEnd) {
	t.Helper()
	must(t, a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: endA.device},
			PeerName:  endB.device, PeerNamespace: netlink.NsFd(b.FD()),
		})
	}))
	must(t, a.Do(endA.raise))
	must(t, b.Do(endB.raise))
}

// raise gives the device of this thread's namespace its addresses.
func (e wireEnd) raise() error {
	link, err := netlink.LinkByName(e.device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, addr := range []netip.Prefix{netip.PrefixFrom(e.v4, 24), netip.PrefixFrom(e.v6, 64)} {
		a, err := netlink.ParseAddr(addr.String())
		if err != nil {
			return err
		}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // there is nobody else, and no time
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return err
		}
	}
	return nil
}

// refused says that an address answered as one where nobody listens.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
