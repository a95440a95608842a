package settings

import (
	"path"
	"strings"
)

// any tells whether every listener meets the criteria.
func (r Rule) any() bool {
	return r.Protocol == "" && !r.GuestAddress.IsValid() && r.First == 0 &&
		r.Container == "" && r.Image == "" && r.Process == ""
}

// covers tells whether r matches every listener that o matches. It may miss
// that of two patterns, but is right when it says so.
func (r Rule) covers(o Rule) bool {
	return r.coversButPort(o) && (r.First == 0 || o.First != 0 && r.First <= o.First && o.Last <= r.Last)
}

func (r Rule) coversButPort(o Rule) bool {
	return (r.Protocol == "" || r.Protocol == o.Protocol) &&
		(!r.GuestAddress.IsValid() || r.GuestAddress == o.GuestAddress) &&
		coversPattern(r.Container, o.Container) &&
		coversPattern(r.Image, o.Image) &&
		coversPattern(r.Process, o.Process)
}

// coversPattern tells whether wide matches all that narrow does. The empty
// pattern is no criterion.
func coversPattern(wide, narrow string) bool {
	switch {
	case wide == "" || wide == narrow:
		return true
	case narrow == "":
		return false
	case !strings.ContainsAny(narrow, `*?[\`):
		ok, err := path.Match(wide, narrow)
		return err == nil && ok
	}
	// A star matches everything but a slash, which a bracket may match.
	start, ok := strings.CutSuffix(wide, "*")
	rest, starts := strings.CutPrefix(narrow, start)
	return ok && starts && !strings.ContainsAny(start, `*?[\`) && !strings.ContainsAny(rest, `/[\`)
}

// clash finds a port of this machine that the rules at i and j, i before j,
// open for different ports of guests, when nothing else tells them apart.
// Ports for which an earlier rule decides are not theirs.
func clash(all []Rule, i, j int) (port uint16, found bool) {
	a, b := all[i], all[j]
	if !a.opens() || !b.opens() || a.shift() == b.shift() ||
		a.HostAddress != b.HostAddress || a.GuestAddress != b.GuestAddress ||
		a.Container != b.Container || a.Image != b.Image || a.Process != b.Process ||
		a.Protocol != "" && b.Protocol != "" && a.Protocol != b.Protocol {
		return 0, false
	}
	last := min(int(a.Last)+a.shift(), int(b.Last)+b.shift())
	for p := max(int(a.First)+a.shift(), int(b.First)+b.shift()); p <= last; {
		next := max(taken(all[:i], a, p), taken(all[:j], b, p))
		if next == 0 {
			return uint16(p), true
		}
		p = next
	}
	return 0, false
}

// taken gives the first port of this machine after p that the earlier rule
// which decides for r at p leaves to r, and 0 when none decides.
func taken(earlier []Rule, r Rule, p int) int {
	guest := p - r.shift()
	for _, e := range earlier {
		if e.First != 0 && int(e.First) <= guest && guest <= int(e.Last) && e.coversButPort(r) {
			return int(e.Last) + r.shift() + 1
		}
	}
	return 0
}

// opens tells whether the rule names the ports of this machine that it opens.
func (r Rule) opens() bool { return r.Action == Forward && r.First != 0 }

// shift is what is added to a guest's port to get this machine's.
func (r Rule) shift() int {
	if r.HostPort == 0 {
		return 0
	}
	return int(r.HostPort) - int(r.First)
}
