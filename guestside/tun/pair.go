package tun

import (
	"errors"
	"fmt"
	"net/netip"
)

// pair is the host's and the guest's address of one family.
type pair struct {
	host, guest netip.Addr
}

// pairs are tried in this order; each ends with its last candidate.
const pairs = 128

// wholeBits is the length of the prefixes that every candidate is in. Routes
// as wide as that do not count as overlapping.
func wholeBits(a netip.Addr) int {
	if a.Is4() {
		return 16
	}
	return 8
}

// pair4 gives the i-th candidate: 169.254.113.2 with .3, 169.254.114.2, ...
func pair4(i int) pair {
	third := 113 + i // up to 240: clear of 0 and 255, which are reserved, and of 73
	if third >= 169 {
		third++
	}
	return pairOf(netip.AddrFrom4([4]byte{169, 254, byte(third), 2}))
}

// pair6 gives the i-th candidate. The prefix is the one random number that a
// unique local address wants, drawn once.
func pair6(i int) pair {
	return pairOf(netip.AddrFrom16([16]byte{0xfd, 0x5c, 0x2b, 0x91, 0x7e, 0x04, 0, byte(i), 15: 2}))
}

// pairOf gives the pair of a host address.
func pairOf(host netip.Addr) pair {
	b := host.AsSlice()
	b[len(b)-1] ^= 1
	guest, _ := netip.AddrFromSlice(b)
	return pair{host: host, guest: guest}
}

// overlapped returns the prefix that takes one of the pair's addresses.
func (p pair) overlapped(taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if t.Bits() > wholeBits(p.host) && (t.Contains(p.host) || t.Contains(p.guest)) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

// choose returns the pair of the wanted host address, or the first candidate
// when none is wanted, which overlaps nothing that is taken.
func choose(wanted netip.Addr, candidate func(int) pair, taken []netip.Prefix) (pair, error) {
	if wanted.IsValid() {
		p := pairOf(wanted)
		if t, found := p.overlapped(taken); found {
			return pair{}, fmt.Errorf("host address %v: %v, which is routed or assigned already, overlaps it or its neighbour %v", wanted, t, p.guest)
		}
		return p, nil
	}
	for i := range pairs {
		p := candidate(i)
		if _, found := p.overlapped(taken); !found {
			return p, nil
		}
	}
	return pair{}, errors.New("no free pair of addresses: each overlaps a route")
}
