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
	port     uint16 // this machine's
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
	if lingers && !slices.Contains(h.served, &c.stats) {
		h.served = append(h.served, &c.stats)
	}
}

// busy says whether connections that it accepted are alive.
func (h *held) busy() bool {
	return slices.ContainsFunc(h.served, func(s *link.Stats) bool { return s.Flows.Load() > 0 })
}

// overlap: within a group, equal addresses and wildcards are in the way.
func overlap(a, b netip.Addr) bool { return a == b || a.IsUnspecified() || b.IsUnspecified() }

// together tells whether one socket may serve both claims: they are for the same
// port of the same guest, and for what would be one service without us. A wildcard
// takes the clients of every address, and 127.0.0.1 and ::1 both are localhost; but
// two addresses that a rule has led to one lead to two services.
func together(a, b *claim) bool {
	if a.fwd.link != b.fwd.link || a.guest.Port() != b.guest.Port() {
		return false
	}
	localhost := func(c *claim) bool { return c.guest.Addr() == loopback4 || c.guest.Addr() == loopback6 }
	return a.guest == b.guest || a.mirrors() && b.mirrors() || localhost(a) && localhost(b)
}

// mirrors tells whether the guest itself listens on the address, or on all.
func (c *claim) mirrors() bool {
	return c.host.Addr() == c.guest.Addr() || c.fwd.listener.Address.IsUnspecified()
}

// settle makes the group's sockets what its claims ask for.
func (e *Engine) settle(g *group) {
	g.retry = time.Time{}
	for _, h := range slices.Clone(g.held) {
		if h.link == nil || !slices.ContainsFunc(g.claims, func(c *claim) bool {
			return c.host.Addr() == h.at && together(c, h.claim)
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

// rank orders the claims: aliases last, the guest's port that has this one first,
// then the one that came first; within it the wildcard, because it covers the
// others, and what is open already.
func (g *group) rank() {
	if len(g.claims) < 2 {
		return
	}
	type tenant struct {
		link *linkState
		port uint16 // the guest's
	}
	type tenure struct {
		absent int // 0 for a tenant that holds a socket
		first  uint64
	}
	tenantOf := func(c *claim) tenant { return tenant{c.fwd.link, c.guest.Port()} }
	tenures := make(map[tenant]tenure)
	for _, c := range g.claims {
		t, ok := tenures[tenantOf(c)]
		if !ok {
			t = tenure{absent: 1, first: c.fwd.seq}
		}
		t.first = min(t.first, c.fwd.seq)
		tenures[tenantOf(c)] = t
	}
	open := make(map[*claim]bool)
	for _, h := range g.held {
		if h.link == nil {
			continue
		}
		open[h.claim] = true
		if t, ok := tenures[tenantOf(h.claim)]; ok && !h.alias {
			t.absent = 0
			tenures[tenantOf(h.claim)] = t
		}
	}
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(g.claims, func(a, b *claim) int {
		ta, tb := tenures[tenantOf(a)], tenures[tenantOf(b)]
		return cmp.Or(
			cmp.Compare(flag(a.alias), flag(b.alias)),
			cmp.Compare(ta.absent, tb.absent),
			cmp.Compare(ta.first, tb.first),
			cmp.Compare(flag(!a.host.Addr().IsUnspecified()), flag(!b.host.Addr().IsUnspecified())),
			cmp.Compare(flag(!open[a]), flag(!open[b])),
			cmp.Compare(a.fwd.seq, b.fwd.seq))
	})
}

// place finds or opens the socket of one claim; those before it in rank have
// theirs.
func (e *Engine) place(g *group, c *claim) {
	at := c.host.Addr()
	for _, h := range g.held {
		if h.link != nil && !together(h.claim, c) && overlap(h.at, at) && (c.alias || !h.alias) {
			c.blocked(e, h)
			return
		}
	}
	for _, h := range g.held {
		if h.link != nil && h.placed && together(h.claim, c) && (h.at == at || h.at.IsUnspecified()) {
			c.becomes(e, Open, "") // covered
			return
		}
	}
	displaced := false
	for _, h := range slices.Clone(g.held) {
		switch {
		case h.at == at && h.claim == c && h.gen == c.fwd.link.gen && h.link != nil:
			h.serve(c, e.cfg.lingers)
			c.becomes(e, Open, "")
			return
		case h.at == at && h.sock.set(c.route()):
			h.serve(c, e.cfg.lingers)
			c.becomes(e, Open, "")
			return
		case h.link != nil && overlap(h.at, at):
			displaced = displaced || h.at != at && !h.alias
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

// blocked by a socket of another link, or for another port of the same guest.
func (c *claim) blocked(e *Engine, h *held) {
	by := fmt.Sprintf("link %q", h.link.name)
	if from := h.claim.fwd.listener; h.link == c.fwd.link {
		by = fmt.Sprintf("the same guest's %s %s", from.Protocol, from.AddrPort())
	} else if from.Port != c.host.Port() {
		by += fmt.Sprintf(" for its port %d", from.Port)
	}
	if c.alias {
		c.becomes(e, Ignored, fmt.Sprintf("::1 is taken by %s; localhost_twin wants it only when free", by))
		return
	}
	c.becomes(e, Conflict, fmt.Sprintf("%s %s is in use by %s", c.fwd.listener.Protocol,
		netip.AddrPortFrom(h.at, c.host.Port()), by))
}

// refused turns the error of an open into a state, and says when to try again.
func (c *claim) refused(e *Engine, err error) time.Duration {
	var be *bind.Error
	at := c.host
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
			e.nameOwner(c)
		} else if c.conflict.product && time.Since(c.conflict.looked) > lookAgain {
			c.conflict.looked = time.Now()
			e.nameOwner(c)
		}
		if c.state == Carried && len(e.retries.heap) > crowdCarried {
			return retryCrowded
		}
		return retryConflict
	case errors.Is(err, bind.ErrNoAddress):
		c.becomes(e, Ignored, missing(c.host.Addr()))
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
