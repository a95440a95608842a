package tun

import (
	"errors"
	"fmt"
	"net"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watch starts to keep the device up, and the rules in front of everybody else's.
func (d *Device) watch() error {
	conn, err := mdnetlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	d.notices = conn
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE} {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("ask for notifications about devices, routes and rules: %w", err)
		}
	}
	// What changed before the notifications came is found here.
	for i := range d.families {
		if err := d.repair(&d.families[i]); err != nil {
			return err
		}
	}
	d.watching.Go(d.keep)
	return nil
}

func (d *Device) keep() {
	for {
		// Notifications that were lost are made up for by looking.
		if _, err := d.notices.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed
		}
		if err := d.raise(); err != nil {
			d.log.WithError(err).Warn("host address: its device is down and cannot be set up")
		}
		for i := range d.families {
			if err := d.restoreRoute(d.families[i]); err != nil {
				d.log.WithError(err).Warn("host address: its route is gone and cannot be made again")
			}
			if err := d.repair(&d.families[i]); err != nil {
				d.log.WithError(err).Warn("host address: its routing rules cannot be repaired")
			}
		}
	}
}

// raise sets the device up when somebody has set it down, and makes anew what
// it lost by that: until then, the rules keep every client from connecting.
func (d *Device) raise() error {
	link, err := d.routes.LinkByIndex(d.link.Attrs().Index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // the owner of the file hears of that
	}
	if err != nil || link.Attrs().Flags&net.FlagUp != 0 {
		return err
	}
	if err := d.prepare(); err != nil {
		return err
	}
	for _, f := range d.families {
		if err := d.addRoute(f); err != nil {
			return err
		}
	}
	d.log.Infof("host address: somebody set device %s down; it is up again", d.name)
	return nil
}

// restoreRoute makes the address and the route anew when somebody has removed
// one of them: the route goes with the address. Without it the rules keep every
// client from connecting.
func (d *Device) restoreRoute(f family) error {
	routes, err := d.routes.RouteListFiltered(f.number, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil || len(routes) > 0 {
		return err // a list that changed meanwhile comes with another notification
	}
	if err := d.addRoute(f); err != nil {
		return err
	}
	d.log.WithField("address", f.pair.host).Info("host address: somebody removed its route; it is back")
	return nil
}

// repair makes the rules anew, in front of all others, when a packet to the
// host address would not take our device.
func (d *Device) repair(f *family) error {
	rules, err := d.rules(f.number)
	if err != nil {
		return err
	}
	ours, lowest := 0, firstPriority+2
	for _, r := range rules {
		switch {
		case r.Protocol == protocol:
			ours++
		case r.Priority > 0:
			lowest = min(lowest, r.Priority)
		}
	}
	if ours == len(f.rules()) && (d.leads(f) || lowest > f.priority) {
		return nil
	}
	if lowest <= 2 {
		return fmt.Errorf("no room before rule %d for %v", lowest, f.pair.host)
	}
	old := *f
	f.priority = lowest - 2
	if err := d.addRules(*f); err != nil {
		return err
	}
	if old.priority != f.priority {
		if err := d.removeRules(old); err != nil {
			return err
		}
	}
	d.log.WithField("address", f.pair.host).Infof("host address: another program's routing rules came first or removed ours; they are back, at priority %d", f.priority)
	return nil
}

// leads asks the kernel where a packet to the host address would go.
func (d *Device) leads(f *family) bool {
	routes, err := d.routes.RouteGet(f.pair.host.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].LinkIndex == d.link.Attrs().Index
}
