package reach

import (
	"cmp"
	"container/list"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// State says what became of the last attempt to reach a port.
type State string

// The states of a port.
const (
	Connecting State = "connecting"
	Open       State = "open"
	Refused    State = "refused" // nobody listens, or only a forward of our own
	Denied     State = "denied"  // a rule forbids it
	Failed     State = "failed"
)

// Port is a port of this machine's loopback that a guest has used.
type Port struct {
	Link     string
	Protocol message.Protocol
	Port     uint16
	State    State
	Reason   string // empty when open or connecting
	Flows    int64
	BytesIn  uint64 // from the guest's clients
	BytesOut uint64 // to them
	// DroppedDatagrams found the link's queue full, or came before the flow's
	// socket was there and were too many.
	DroppedDatagrams uint64
	Since            time.Time // first use
	LastUse          time.Time // of a flow that began or ended
}

// Ports lists the ports that guests have used, by port, protocol and link. Of each
// link it remembers those used last.
func (r *Reach) Ports() []Port {
	ports := []Port{}
	r.mu.Lock()
	for _, g := range r.guests {
		for _, u := range g.usages {
			ports = append(ports, Port{
				Link: g.link, Protocol: u.protocol, Port: u.port, State: u.state, Reason: u.reason,
				Flows:            u.stats.Flows.Load(),
				BytesIn:          u.stats.BytesIn.Load(),
				BytesOut:         u.stats.BytesOut.Load(),
				DroppedDatagrams: u.stats.DroppedDatagrams.Load(),
				Since:            u.since, LastUse: u.lastUse,
			})
		}
	}
	r.mu.Unlock()
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Link, b.Link))
	})
	return ports
}

// Forget drops what is remembered of a link that is no more. Flows that it still
// has end with its session.
func (r *Reach) Forget(link string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.guests, link)
}

// Bounds of what one guest can make this process keep or do.
const (
	// maxPorts is how many ports are remembered. A scan passes through here.
	maxPorts = 1024
	// maxDials is how many TCP connections may be in the making, each a
	// descriptor, and maxDialsPerPort how many of them to one port. On a loopback
	// that answers a dial takes a fraction of a millisecond.
	maxDials        = 1024
	maxDialsPerPort = 64
	// maxKeptBytes bounds the datagrams kept until their flows are answered.
	maxKeptBytes = 16 << 20
)

// guest is what belongs to one link.
type guest struct {
	link  string
	dials chan struct{} // holds a token for each dial
	kept  atomic.Int64  // bytes of datagrams

	usages map[usageKey]*usage
	order  *list.List // of *usage, the least recently used in front
}

type usageKey struct {
	protocol message.Protocol
	port     uint16
}

// usage is one port as one guest uses it. What follows stats is under the Reach's
// lock.
type usage struct {
	usageKey
	guest *guest
	dials chan struct{} // holds a token for each dial
	stats link.Stats

	state          State
	reason         string
	since, lastUse time.Time
	place          *list.Element
}

func newGuest(link string) *guest {
	return &guest{link: link, dials: make(chan struct{}, maxDials),
		usages: make(map[usageKey]*usage), order: list.New()}
}

// usage finds or makes the entry of a port that is being used.
func (g *guest) usage(protocol message.Protocol, port uint16) *usage {
	k := usageKey{protocol, port}
	u := g.usages[k]
	if u == nil {
		if len(g.usages) >= maxPorts {
			g.evict()
		}
		u = &usage{usageKey: k, guest: g, dials: make(chan struct{}, maxDialsPerPort),
			state: Connecting, since: time.Now()}
		u.place = g.order.PushBack(u)
		g.usages[k] = u
	}
	u.touch()
	return u
}

// evict forgets the port that has not been used for longest, preferably one
// without flows, or one that a scan is at.
func (g *guest) evict() {
	oldest := func(spare func(*usage) bool) *usage {
		for e := g.order.Front(); e != nil; e = e.Next() {
			if u := e.Value.(*usage); spare(u) {
				return u
			}
		}
		return nil
	}
	victim := oldest(func(u *usage) bool { return u.stats.Flows.Load() == 0 })
	if victim == nil {
		victim = oldest(func(u *usage) bool { return u.state != Open })
	}
	if victim == nil {
		victim = oldest(func(*usage) bool { return true })
	}
	g.order.Remove(victim.place)
	delete(g.usages, victim.usageKey)
}

// touch notes a use. An entry that was evicted stays so.
func (u *usage) touch() {
	u.lastUse = time.Now()
	u.guest.order.MoveToBack(u.place)
}

func (u *usage) became(s State, reason string) { u.state, u.reason = s, reason }
