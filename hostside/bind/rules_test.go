package bind

import (
	"errors"
	"net/netip"
	"reflect"
	"syscall"
	"testing"
)

// TestRules runs the rules of every system against a system that is only
// pretended: occupied addresses are in use, forbidden ones need permission.
func TestRules(t *testing.T) {
	type addrs []string
	for _, c := range []struct {
		name, goos, protocol, at string
		occupied, forbidden      addrs
		probed, bound            addrs
		filtered                 bool
		want                     error
	}{
		{name: "linux asks the kernel only", goos: "linux", protocol: "tcp", at: "127.0.0.1:80",
			bound: addrs{"127.0.0.1:80"}},
		{name: "linux does not widen", goos: "linux", protocol: "tcp", at: "127.0.0.1:80",
			forbidden: addrs{"127.0.0.1:80"}, want: ErrPermission},
		{name: "windows does not widen", goos: "windows", protocol: "tcp", at: "127.0.0.1:80",
			forbidden: addrs{"127.0.0.1:80"}, want: ErrPermission},
		{name: "darwin sees the owner of the wildcard", goos: "darwin", protocol: "tcp", at: "127.0.0.1:8000",
			occupied: addrs{"0.0.0.0:8000"}, probed: addrs{"0.0.0.0:8000"}, want: ErrInUse},
		{name: "darwin sees the owner of the loopback", goos: "darwin", protocol: "tcp", at: "[::]:8000",
			occupied: addrs{"[::1]:8000"}, probed: addrs{"[::1]:8000"}, want: ErrInUse},
		{name: "darwin: a probe without permission finds nobody", goos: "darwin", protocol: "tcp", at: "0.0.0.0:80",
			forbidden: addrs{"127.0.0.1:80"}, probed: addrs{"127.0.0.1:80"}, bound: addrs{"0.0.0.0:80"}},
		{name: "darwin opens low loopback ports on the wildcard", goos: "darwin", protocol: "tcp", at: "127.0.0.1:80",
			forbidden: addrs{"127.0.0.1:80"}, probed: addrs{"0.0.0.0:80", "127.0.0.1:80"}, bound: addrs{"0.0.0.0:80"}, filtered: true},
		{name: "darwin: so for ::1", goos: "darwin", protocol: "udp", at: "[::1]:80",
			forbidden: addrs{"[::1]:80"}, bound: addrs{"[::]:80"}, filtered: true},
		{name: "darwin: so for UDP", goos: "darwin", protocol: "udp", at: "127.0.0.1:80",
			forbidden: addrs{"127.0.0.1:80"}, bound: addrs{"0.0.0.0:80"}, filtered: true},
		{name: "darwin: the wildcard is taken too", goos: "darwin", protocol: "udp", at: "127.0.0.1:80",
			forbidden: addrs{"127.0.0.1:80"}, occupied: addrs{"0.0.0.0:80"}, want: ErrInUse},
		{name: "darwin never widens a LAN address", goos: "darwin", protocol: "udp", at: "192.0.2.1:80",
			forbidden: addrs{"192.0.2.1:80"}, want: ErrPermission},
		{name: "darwin never widens 127.0.0.2", goos: "darwin", protocol: "udp", at: "127.0.0.2:80",
			forbidden: addrs{"127.0.0.2:80"}, want: ErrPermission},
		{name: "darwin never widens a high port", goos: "darwin", protocol: "udp", at: "127.0.0.1:8000",
			forbidden: addrs{"127.0.0.1:8000"}, want: ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			system := func(at netip.AddrPort) error {
				for _, s := range c.occupied {
					if s == at.String() {
						return syscall.EADDRINUSE
					}
				}
				for _, s := range c.forbidden {
					if s == at.String() {
						return syscall.EACCES
					}
				}
				return nil
			}
			var probed, bound addrs
			b := binder{rules: rulesFor(c.goos), probe: func(_ string, at netip.AddrPort) error {
				probed = append(probed, at.String())
				return system(at)
			}}
			peers, err := b.open(c.protocol, netip.MustParseAddrPort(c.at), func(at netip.AddrPort) error {
				if err := system(at); err != nil {
					return err
				}
				bound = append(bound, at.String())
				return nil
			})
			if !errors.Is(err, c.want) || !reflect.DeepEqual(probed, c.probed) || !reflect.DeepEqual(bound, c.bound) {
				t.Errorf("%v, probed %v, bound %v; want %v, %v, %v", err, probed, bound, c.want, c.probed, c.bound)
			}
			if (peers != nil) != c.filtered {
				t.Fatalf("filtered: %v, want %v", peers != nil, c.filtered)
			}
			if c.filtered && (!peers(netip.MustParseAddr("127.0.0.1")) || peers(netip.MustParseAddr("192.0.2.9"))) {
				t.Error("the filter does not tell loopback from LAN")
			}
		})
	}
}
