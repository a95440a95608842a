package daemon

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/product"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

var _ control.Backend = (*Daemon)(nil)

// Changed implements control.Backend.
func (d *Daemon) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// Key implements control.Backend.
func (d *Daemon) Key(name string) (string, error) {
	for _, l := range d.linksNow() {
		if l.Name != name {
			continue
		}
		if l.key == "" {
			return "", fmt.Errorf("link %q needs no key: %w", name, control.ErrNotFound)
		}
		key, err := linkkey.Load(l.key)
		if err != nil {
			return "", err
		}
		return key.String(), nil
	}
	return "", fmt.Errorf("link %q: %w: the links are %s", name, control.ErrNotFound, d.linkNames())
}

// Sandbox implements control.Backend.
func (d *Daemon) Sandbox(name string) (control.Sandbox, error) {
	var found []*runningLink
	for _, l := range d.linksNow() {
		if l.sandbox != nil && (name == "" || l.Name == name) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 1:
		return control.Sandbox{Link: found[0].Name, NetNS: found[0].sandbox.NetNS()}, nil
	case len(found) > 1:
		return control.Sandbox{}, fmt.Errorf("sandbox guest %w: there are several, name a link", control.ErrNotFound)
	case name == "":
		return control.Sandbox{}, fmt.Errorf("sandbox guest %w: none of the links (%s) is a sandbox", control.ErrNotFound, d.linkNames())
	}
	return control.Sandbox{}, fmt.Errorf("sandbox guest of link %q %w", name, control.ErrNotFound)
}

func (d *Daemon) linkNames() string {
	var names []string
	for _, l := range d.linksNow() {
		names = append(names, l.Name)
	}
	return strings.Join(names, ", ")
}

// Status implements control.Backend.
func (d *Daemon) Status() control.Status {
	s := d.current()
	status := control.Status{
		Version: d.config.Version, PID: os.Getpid(), Home: d.config.Home, Since: d.since,
		HostNetworking: s.HostNetworking, HostNetworkingReason: s.Reason,
		Isolation: s.Isolation, Evidence: s.Evidence, Warnings: s.Warnings,
	}
	forwards := d.engine.Forwards()
	status.Counts = control.Count(portsOf(forwards), d.Reached())
	carried := carriedBy(forwards)
	off := s.reachOff()
	for _, l := range d.linksNow() {
		link := l.guest.status()
		link.Carried = carried[l.Name]
		if link.HostReach.State != message.HostReachUnavailable && off != "" {
			// Said now, even where the agent has yet to hear it.
			link.HostReach = control.Feature{State: control.Off, Reason: off}
		}
		status.Links = append(status.Links, link)
	}
	return status
}

// Ports implements control.Backend.
func (d *Daemon) Ports() []control.Port {
	return portsOf(d.engine.Forwards())
}

func portsOf(forwards []forward.Forward) []control.Port {
	ports := make([]control.Port, 0, len(forwards))
	for _, f := range forwards {
		p := control.Port{
			Protocol: string(f.Protocol), Guest: control.Address(f.Guest),
			Host:  make([]control.HostPort, 0, len(f.Host)),
			State: string(f.State), Reason: f.Reason,
			Owner: control.Owner{Container: f.Owner.Container, Image: f.Owner.Image,
				Process: f.Owner.Process, PID: f.Owner.PID},
			Link: f.Link, Flows: f.Flows, BytesIn: f.BytesIn, BytesOut: f.BytesOut, Since: f.Since,
		}
		for _, h := range f.Host {
			p.Host = append(p.Host, control.HostPort{Address: h.Address, Port: h.Port,
				State: string(h.State), Reason: h.Reason, Alias: h.Alias})
		}
		ports = append(ports, p)
	}
	slices.SortFunc(ports, control.Compare)
	return ports
}

// carriedBy counts, for each link, what products carry of it.
func carriedBy(forwards []forward.Forward) map[string][]control.Carried {
	type key struct {
		link string
		by   product.VM
	}
	counts := make(map[key]int)
	for _, f := range forwards {
		seen := make(map[product.VM]bool)
		for _, h := range f.Host {
			if h.State == forward.Carried && !seen[h.By] {
				seen[h.By] = true
				counts[key{f.Link, h.By}]++
			}
		}
	}
	carried := make(map[string][]control.Carried)
	for k, n := range counts {
		carried[k.link] = append(carried[k.link],
			control.Carried{Product: k.by.Product, VM: k.by.Name, Ports: n, Switch: k.by.Switch()})
	}
	for _, list := range carried {
		slices.SortFunc(list, func(a, b control.Carried) int {
			return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.VM, b.VM))
		})
	}
	return carried
}

// Reached implements control.Backend.
func (d *Daemon) Reached() []control.ReachedPort {
	ports := d.reach.Ports()
	reached := make([]control.ReachedPort, 0, len(ports))
	for _, p := range ports {
		reached = append(reached, control.ReachedPort{
			Link: p.Link, Protocol: string(p.Protocol), Port: p.Port,
			State: string(p.State), Reason: p.Reason,
			Flows: p.Flows, BytesIn: p.BytesIn, BytesOut: p.BytesOut,
			Since: p.Since, LastUse: p.LastUse,
		})
	}
	return reached
}
