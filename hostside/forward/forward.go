package forward

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/vmbridge/vmbridge/hostside/product"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// State says how a forward, or one of its host addresses, stands.
type State string

// The states of a forward.
const (
	Open     State = "open"
	Conflict State = "conflict" // somebody else has the port; retried until it is free
	Carried  State = "carried"  // the VM's own product forwards the port; retried as well
	Denied   State = "denied"   // a rule forbids it
	Ignored  State = "ignored"  // a rule or the nature of the address leaves it out
	Failed   State = "failed"   // the host refused it; retried
)

// Forward is a guest's listener and what became of it. Package control has the
// JSON of it.
type Forward struct {
	Protocol message.Protocol
	Guest    Guest
	Host     []Host
	State    State
	Reason   string
	Owner    message.Owner
	Link     string
	Flows    int64
	BytesIn  uint64
	BytesOut uint64
	// DroppedDatagrams found the link's queue full.
	DroppedDatagrams uint64
	Since            time.Time
}

// Guest is where the guest listens.
type Guest struct {
	Address   netip.Addr
	Port      uint16
	DualStack bool
}

// Host is one address on the host. An alias (localhost_twin) never makes a
// conflict and does not count for the state of the forward.
type Host struct {
	Address netip.Addr
	Port    uint16
	State   State
	Reason  string
	Alias   bool
	// By is the VM whose product has a port that is carried.
	By product.VM
}

// Key names the listener within its link.
func (f Forward) Key() message.Key {
	return message.Key{Protocol: f.Protocol, Address: f.Guest.Address, Port: f.Guest.Port, DualStack: f.Guest.DualStack}
}

// mentionAfter is the age from which a TCP forward is mentioned. A program that
// only looks for a free port is done with it sooner. UDP listeners have lived as
// long before they are reported.
const mentionAfter = 50 * time.Millisecond

// waitAfter is the age from which a forward is mentioned whose rule waits for a
// name. Engines name most containers sooner.
const waitAfter = time.Second

// forward is one listener of one link.
type forward struct {
	link     *linkState
	listener message.Listener
	seen     time.Time
	seq      uint64 // order of appearance, over all links
	plan     plan
	claims   []*claim
	before   carried // by claims that the policy has ended
	gone     bool
	told     told // what has been mentioned
}

// told is the mentioned state of a forward; zero when it has not been mentioned.
type told struct {
	state  State
	reason string
	port   uint16 // this machine's
	by     product.VM
}

// claim is one host address that a forward wants. It is wanted once: where the
// address is wanted again, that is another claim.
type claim struct {
	bindWish
	fwd    *forward
	stats  link.Stats // of the clients of its sockets
	state  State
	reason string
	// conflict is set while another process has the port.
	conflict *conflict
}

// conflict is one period in which another process had the port. It is named
// once, when its owner is known.
type conflict struct {
	at    netip.AddrPort // where the owner is in the way
	named bool
	// A product's forwarder has the port, or had it when it was looked at last; by
	// is whose, where it is the link's own VM.
	product bool
	by      product.VM
	looked  time.Time
}

// carried is what a forward has carried.
type carried struct {
	flows            int64
	in, out, dropped uint64
}

func (c *carried) add(s *link.Stats) {
	c.flows += s.Flows.Load()
	c.in += s.BytesIn.Load()
	c.out += s.BytesOut.Load()
	c.dropped += s.DroppedDatagrams.Load()
}

// state folds the host addresses into one state, the one that a user should
// look at first.
func (f *forward) state() (State, string) {
	if len(f.claims) == 0 {
		return f.plan.state, f.plan.reason
	}
	for _, s := range []State{Conflict, Failed, Carried, Open, Ignored} {
		for _, c := range f.claims {
			if c.state == s && !c.alias {
				return s, c.reason
			}
		}
	}
	return Failed, "not opened yet"
}

// pending says that the owner of a conflicting port is still being looked up.
func (f *forward) pending() bool {
	for _, c := range f.claims {
		if c.conflict != nil && !c.conflict.named {
			return true
		}
	}
	return false
}

// by is the VM that a claim is carried for.
func (c *claim) by() product.VM {
	if c.conflict == nil {
		return product.VM{}
	}
	return c.conflict.by
}

// by is the VM of the claim that a forward's state is about.
func (f *forward) by() product.VM {
	for _, c := range f.claims {
		if c.state == Carried && !c.alias {
			return c.by()
		}
	}
	return product.VM{}
}

// mentionAt is when the forward may be mentioned.
func (f *forward) mentionAt() time.Time {
	switch {
	case f.plan.waits:
		return f.seen.Add(waitAfter)
	case f.listener.Protocol == message.UDP:
		return f.seen
	}
	return f.seen.Add(mentionAfter)
}

// port is this machine's port, or the guest's when none is wanted.
func (f *forward) port() uint16 {
	if len(f.claims) > 0 {
		return f.claims[0].host.Port()
	}
	return f.listener.Port
}

func (f *forward) snapshot() Forward {
	k := f.listener.Key
	sum := f.before
	hosts := make([]Host, 0, len(f.claims))
	for _, c := range f.claims {
		sum.add(&c.stats)
		hosts = append(hosts, Host{Address: c.host.Addr(), Port: c.host.Port(), State: c.state, Reason: c.reason, Alias: c.alias, By: c.by()})
	}
	out := Forward{
		Protocol:         k.Protocol,
		Guest:            Guest{Address: k.Address, Port: k.Port, DualStack: k.DualStack},
		Host:             hosts,
		Owner:            f.listener.Owner,
		Link:             f.link.name,
		Flows:            sum.flows,
		BytesIn:          sum.in,
		BytesOut:         sum.out,
		DroppedDatagrams: sum.dropped,
		Since:            f.seen,
	}
	out.State, out.Reason = f.state()
	return out
}

// sortForwards orders a listing: by port, then protocol, address and link.
func sortForwards(list []Forward) {
	slices.SortFunc(list, func(a, b Forward) int {
		return cmp.Or(
			cmp.Compare(a.Guest.Port, b.Guest.Port),
			cmp.Compare(a.Protocol, b.Protocol),
			a.Guest.Address.Compare(b.Guest.Address),
			cmp.Compare(a.Link, b.Link))
	})
}
