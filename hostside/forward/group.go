package forward

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// groupKey is what sockets must have in common to be in each other's way.
type groupKey struct {
	protocol message.Protocol
	port     uint16
	v6       bool
}

// group is the claims on one port of one family, and the sockets open for them.
type group struct {
	groupKey
	claims  []*claim
	held    []*held
	touched bool

	retry     time.Time // when to settle again, zero for never
	heapIndex int       // in the engine's retry queue, -1 when not in it
}

// held is one open host socket.
type held struct {
	at     netip.Addr
	link   *linkState // nil while the socket only lingers for its connections
	alias  bool
	sock   hostSocket
	claim  *claim // whose clients it takes
	gen    int    // of the link's carrier
	placed bool   // the claim has been confirmed in this settling
	opened time.Time
	served []*link.Stats // of every forward it has served, where sockets linger
}

// serve notes whom the socket works for.
func (h *held) serve(c *claim, lingers bool) {
	h.link, h.alias, h.claim, h.gen, h.placed = c.fwd.link, c.alias, c, c.fwd.link.gen, true
	if lingers && !slices.Contains(h.served, &c.fwd.stats) {
		h.served = append(h.served, &c.fwd.stats)
	}
}

// busy says whether connections that it accepted are alive.
func (h *held) busy() bool {
	return slices.ContainsFunc(h.served, func(s *link.Stats) bool { return s.Flows.Load() > 0 })
}

// overlap: within a group, equal addresses and wildcards are in the way.
func overlap(a, b netip.Addr) bool { return a == b || a.IsUnspecified() || b.IsUnspecified() }

// settle makes the group's sockets what its claims ask for.
func (e *Engine) settle(g *group) {
	g.retry = time.Time{}
	for _, h := range slices.Clone(g.held) {
		if h.link == nil || !slices.ContainsFunc(g.claims, func(c *claim) bool {
			return c.fwd.link == h.link && c.host == h.at
		}) {
			e.letGo(g, h)
		}
		h.placed = false
	}
	g.rank()
	for _, c := range g.claims {
		e.place(g, c)
	}
	if len(g.claims) == 0 && len(g.held) == 0 {
		g.retry = time.Time{}
		delete(e.groups, g.groupKey)
	}
	e.retries.update(g)
}

// rank orders the claims: aliases last, the link that holds the port first, then
// the link that came first; within a link the wildcard, because it covers the
// others.
func (g *group) rank() {
	if len(g.claims) < 2 {
		return
	}
	type tenure struct {
		absent int // 0 for a link that holds a socket
		first  uint64
	}
	links := make(map[*linkState]tenure)
	for _, c := range g.claims {
		t, ok := links[c.fwd.link]
		if !ok {
			t = tenure{absent: 1, first: c.fwd.seq}
		}
		t.first = min(t.first, c.fwd.seq)
		links[c.fwd.link] = t
	}
	for _, h := range g.held {
		if t, ok := links[h.link]; ok && !h.alias {
			t.absent = 0
			links[h.link] = t
		}
	}
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(g.claims, func(a, b *claim) int {
		ta, tb := links[a.fwd.link], links[b.fwd.link]
		return cmp.Or(
			cmp.Compare(flag(a.alias), flag(b.alias)),
			cmp.Compare(ta.absent, tb.absent),
			cmp.Compare(ta.first, tb.first),
			cmp.Compare(flag(!a.host.IsUnspecified()), flag(!b.host.IsUnspecified())),
			cmp.Compare(a.fwd.seq, b.fwd.seq))
	})
}

// place finds or opens the socket of one claim; those before it in rank have
// theirs.
func (e *Engine) place(g *group, c *claim) {
	for _, h := range g.held {
		if h.link != nil && h.link != c.fwd.link && overlap(h.at, c.host) && (c.alias || !h.alias) {
			c.blocked(e, h)
			return
		}
	}
	for _, h := range g.held {
		if h.link == c.fwd.link && h.placed && (h.at == c.host || h.at.IsUnspecified()) {
			c.becomes(e, Open, "") // covered
			return
		}
	}
	displaced := false
	for _, h := range slices.Clone(g.held) {
		switch {
		case h.at == c.host && h.claim == c && h.gen == c.fwd.link.gen && h.link != nil:
			h.serve(c, e.cfg.lingers)
			c.becomes(e, Open, "")
			return
		case h.at == c.host && h.sock.set(c.route()):
			h.serve(c, e.cfg.lingers)
			c.becomes(e, Open, "")
			return
		case h.link != nil && overlap(h.at, c.host):
			displaced = displaced || h.at != c.host && !h.alias
			e.letGo(g, h)
		}
	}
	err := e.open(g, c)
	if err == nil {
		c.becomes(e, Open, "")
		return
	}
	wait := c.refused(e, err)
	if displaced {
		// A wildcard that fails has cost its link's specific sockets an instant:
		// they reopen next in rank, and it shall not happen twice a second.
		wait = retrySlow
	}
	e.retryAt(g, wait)
}

// letGo closes a socket, or where its accepted connections hold the port keeps
// it, resetting newcomers, until they have ended.
func (e *Engine) letGo(g *group, h *held) {
	if e.cfg.lingers && g.protocol == message.TCP && h.busy() {
		h.link = nil
		h.sock.set(nil)
		e.retryAt(g, retryConflict)
		return
	}
	g.drop(h)
	e.closeSocket(g, h)
	e.sockets--
}

// drop takes a socket off the list, and says whether it was there.
func (g *group) drop(h *held) bool {
	i := slices.Index(g.held, h)
	if i < 0 {
		return false
	}
	g.held = slices.Delete(g.held, i, i+1)
	return true
}

// becomes sets the state of a claim, and sees to it that a change is told.
func (c *claim) becomes(e *Engine, s State, reason string) {
	c.conflict = nil
	c.set(e, s, reason)
}

func (c *claim) set(e *Engine, s State, reason string) {
	if c.state != s || c.reason != reason {
		c.state, c.reason = s, reason
		e.dirty[c.fwd] = struct{}{}
	}
}

func (c *claim) fails(e *Engine, reason string) { c.becomes(e, Failed, reason) }

// blocked by a socket of another link.
func (c *claim) blocked(e *Engine, h *held) {
	if c.alias {
		c.becomes(e, Ignored, fmt.Sprintf("::1 is taken by link %q; localhost_twin wants it only when free", h.link.name))
		return
	}
	c.becomes(e, Conflict, fmt.Sprintf("%s %s is in use by link %q", c.fwd.listener.Protocol,
		netip.AddrPortFrom(h.at, c.fwd.listener.Port), h.link.name))
}

// refused turns the error of an open into a state, and says when to try again.
func (c *claim) refused(e *Engine, err error) time.Duration {
	var be *bind.Error
	at := netip.AddrPortFrom(c.host, c.fwd.listener.Port)
	if errors.As(err, &be) {
		at = be.At
	}
	switch {
	case c.alias:
		c.becomes(e, Ignored, "::1 is not to be had; localhost_twin wants it only when free")
		if errors.Is(err, bind.ErrInUse) {
			return retryConflict
		}
		return retrySlow
	case errors.Is(err, bind.ErrInUse):
		if c.conflict == nil {
			c.conflict = &conflict{at: at}
			c.set(e, Conflict, fmt.Sprintf("%s %s is in use", c.fwd.listener.Protocol, at))
			e.unnamed = append(e.unnamed, naming{c, c.conflict})
			signal(e.lookUp)
		}
		return retryConflict
	case errors.Is(err, bind.ErrNoAddress):
		c.becomes(e, Ignored, missing(c.host))
		return retrySlow
	case errors.Is(err, bind.ErrPermission):
		c.fails(e, reasonOf(be))
		return retrySlow
	case be != nil:
		c.fails(e, reasonOf(be))
	default:
		c.fails(e, err.Error())
	}
	return retryConflict
}

func reasonOf(be *bind.Error) string {
	if be.Hint != "" {
		return be.Hint
	}
	return be.Error()
}

// missing explains an address that the host does not have.
func missing(a netip.Addr) string {
	switch {
	case a == loopback6 || a == wildcard6:
		return "this host has no IPv6"
	case a == loopback4 || a == wildcard4:
		return "this host has no IPv4"
	case a.IsLoopback():
		return "this host has no address " + a.String()
	}
	return a.String() + " is an address that only the VM has"
}
