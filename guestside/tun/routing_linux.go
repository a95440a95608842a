package tun

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// table is our routing table: the agent's vsock port as a number that is
	// easy to recognise.
	table = 732
	// protocol marks our rules and routes. Nobody has it in iproute2's list.
	protocol = 173
	// firstPriority is where the rules go when nobody is in the way: in front of
	// VPNs, which begin at about 5000, and of VRF at 1000.
	firstPriority = 900
)

// family is what one address family has in the kernel.
type family struct {
	number   int // unix.AF_INET or AF_INET6
	pair     pair
	priority int // of the first rule, the second one follows
}

// add makes the address, the route and the rules of one family.
func (d *Device) add(number int, p pair) error {
	f := family{number: number, pair: p, priority: firstPriority}
	d.families = append(d.families, f)
	// First of all, what is forwarded to the host address goes nowhere.
	if err := d.addRules(f); err != nil {
		return err
	}
	return d.addRoute(f)
}

// addRoute makes the address and the route, as far as they are not there.
func (d *Device) addRoute(f family) error {
	p := f.pair
	address := &netlink.Addr{IPNet: single(p.guest), Flags: unix.IFA_F_NOPREFIXROUTE}
	if f.number == unix.AF_INET {
		address.Scope = unix.RT_SCOPE_LINK
	} else {
		address.Flags |= unix.IFA_F_NODAD
		address.ValidLft, address.PreferedLft = math.MaxUint32, 0
	}
	if err := d.routes.AddrReplace(d.link, address); err != nil {
		return fmt.Errorf("add address %v: %w", p.guest, err)
	}
	if err := d.awaitLocal(p.guest); err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: d.link.Attrs().Index,
		Scope:     unix.RT_SCOPE_LINK,
		Dst:       single(p.host),
		Src:       p.guest.AsSlice(),
		Table:     table,
		Protocol:  protocol,
	}
	if err := d.routes.RouteReplace(route); err != nil {
		return fmt.Errorf("add route to %v: %w", p.host, err)
	}
	return nil
}

// awaitLocal waits until the kernel takes packets to a new address, which it
// does for IPv6 only when a work queue gets to it.
func (d *Device) awaitLocal(a netip.Addr) error {
	const limit = 5 * time.Second
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < limit; <-tick.C {
		routes, err := d.routes.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
	}
	return fmt.Errorf("address %v is still not in use after %v", a, limit)
}

// rules are for the machine's own packets, and for everybody else's.
func (f family) rules() [2]*netlink.Rule {
	own, others := netlink.NewRule(), netlink.NewRule()
	own.IifName, own.Table, own.Priority = "lo", table, f.priority
	others.Type, others.Priority = unix.RTN_PROHIBIT, f.priority+1
	for _, r := range []*netlink.Rule{own, others} {
		r.Family, r.Protocol, r.Dst = f.number, protocol, single(f.pair.host)
	}
	return [2]*netlink.Rule{own, others}
}

func (d *Device) addRules(f family) error {
	rules := f.rules()
	for _, r := range []*netlink.Rule{rules[1], rules[0]} {
		err := d.routes.RuleAdd(r)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
			return fmt.Errorf("the kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES): %w", err)
		case err != nil && !errors.Is(err, unix.EEXIST):
			return fmt.Errorf("add rule %d: %w", r.Priority, err)
		}
	}
	return nil
}

// removeRules leaves no rule of the family that is ours. The guard goes last.
func (d *Device) removeRules(f family) error {
	var errs []error
	for _, r := range f.rules() {
		if err := d.routes.RuleDel(r); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove rule %d: %w", r.Priority, err))
		}
	}
	return errors.Join(errs...)
}

// removeStaleRules removes the rules of an agent that was killed. One that
// lives still has its route, because its device is there.
func (d *Device) removeStaleRules() error {
	routes, err := d.routes.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if link, err := d.routes.LinkByIndex(r.LinkIndex); err == nil {
			name := link.Attrs().Name
			return fmt.Errorf("routing table %d is %w by device %s, %s", table, ErrBusy, name, holder(name))
		}
	}
	rules, err := d.rules(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Protocol != protocol {
			continue
		}
		if err := d.routes.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove stale rule %d: %w", r.Priority, err)
		}
	}
	return nil
}

// rules lists the rules, again when they changed meanwhile.
func (d *Device) rules(number int) ([]netlink.Rule, error) {
	for {
		rules, err := d.routes.RuleList(number)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		return rules, nil
	}
}

// taken lists the destinations of all routes. The table "local" has the
// machine's addresses.
func (d *Device) taken() ([]netip.Prefix, error) {
	var taken []netip.Prefix
	filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	for {
		routes, err := d.routes.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			address, ok := netip.AddrFromSlice(r.Dst.IP)
			if bits, _ := r.Dst.Mask.Size(); ok {
				taken = append(taken, netip.PrefixFrom(address.Unmap(), bits))
			}
		}
		return taken, nil
	}
}

// single is the prefix that holds one address.
func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
