package tun

import (
	"net/netip"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		name, wanted string
		taken        []string
		want         string // "" means an error
	}{
		{"first", "", nil, "169.254.113.2"},
		{"the machine's addresses", "", []string{"127.0.0.0/8", "10.0.0.1/32"}, "169.254.113.2"},
		{"zeroconf", "", []string{"169.254.0.0/16"}, "169.254.113.2"},
		{"full tunnel", "", []string{"128.0.0.0/1", "0.0.0.0/0"}, "169.254.113.2"},
		{"neighbour taken", "", []string{"169.254.113.3/32"}, "169.254.114.2"},
		{"subnets taken", "", []string{"169.254.112.0/22", "169.254.116.0/24"}, "169.254.117.2"},
		{"wanted", "169.254.5.8", []string{"169.254.0.0/16"}, "169.254.5.8"},
		{"wanted is taken", "169.254.5.8", []string{"169.254.5.9/32"}, ""},
		{"all taken", "", []string{"169.254.0.0/17", "169.254.128.0/17"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var wanted netip.Addr
			if test.wanted != "" {
				wanted = netip.MustParseAddr(test.wanted)
			}
			var taken []netip.Prefix
			for _, p := range test.taken {
				taken = append(taken, netip.MustParsePrefix(p))
			}
			got, err := choose(wanted, pair4, taken)
			switch {
			case test.want == "" && err == nil:
				t.Errorf("chose %v, want an error", got)
			case test.want != "" && (err != nil || got.host != netip.MustParseAddr(test.want)):
				t.Errorf("chose %v, %v, want %s", got.host, err, test.want)
			}
		})
	}
	if got, err := choose(netip.Addr{}, pair6, []netip.Prefix{netip.MustParsePrefix("fd5c:2b91:7e04::/64"), netip.MustParsePrefix("fc00::/7")}); err != nil || got.host != netip.MustParseAddr("fd5c:2b91:7e04:1::2") {
		t.Errorf("chose %v, %v", got.host, err)
	}
}

func TestCandidates(t *testing.T) {
	seen := make(map[netip.Addr]bool)
	for _, candidate := range []func(int) pair{pair4, pair6} {
		for i := range pairs {
			p := candidate(i)
			if seen[p.host] || p != (pair{host: pairOf(p.guest).guest, guest: pairOf(p.guest).host}) {
				t.Errorf("candidate %d is %v", i, p)
			}
			seen[p.host] = true
			for _, never := range []string{"169.254.0.", "169.254.73.", "169.254.169.", "169.254.255."} {
				if strings.HasPrefix(p.host.String(), never) {
					t.Errorf("candidate %d is %v", i, p.host)
				}
			}
		}
	}
}
