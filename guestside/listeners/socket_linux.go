package listeners

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vmbridge/vmbridge/guestside/owner"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// settleTime is how long a UDP socket has to live before it is reported.
const settleTime = 50 * time.Millisecond

// socket is one socket that waits for peers.
type socket struct {
	key       message.Key
	local     netip.AddrPort // as the kernel has it
	family    sockdiag.Family
	cookie    uint64
	inode     uint32
	cgroup    uint64
	ephemeral bool
	seen      uint32    // the last pass that saw it
	due       time.Time // when it may be reported
	search    search    // for its process, before it is reported
	reported  bool      // it is in its group, unless it is our own
	dropped   bool      // it is gone

	process   owner.Process // PID 0 when unknown
	own       bool          // held by the agent
	container owner.Container
	nextCheck time.Time // when the owner is worth another look; zero: never
	checkStep time.Duration
}

// search says how far the search for a socket's process is, where no hook told
// it.
type search uint8

const (
	notSearched search = iota
	searchNext
	searchedInVain
)

// protocolState is what is known of the sockets of one protocol.
type protocolState struct {
	number  sockdiag.Protocol
	plan    plan
	looks   int                // dumps tried
	failing bool               // the last dump failed
	dump    []sockdiag.Socket  // reused
	pass    uint32             // dumps that succeeded
	seen    int                // sockets that this pass saw
	sockets map[uint64]*socket // by cookie
	// waiting holds the sockets that are not reported yet, doubtful those whose
	// owner is to be looked at again.
	waiting  []*socket
	doubtful map[*socket]struct{}
	// clients holds, by cookie, the pass that last saw a UDP socket that is not
	// reported, so that it is judged once.
	clients map[uint64]uint32
	ports   map[uint16]int // number of sockets by port
	// lastBind is when the last socket was bound on purpose (UDP).
	lastBind time.Time
}

func newProtocolState(number sockdiag.Protocol) *protocolState {
	return &protocolState{
		number:   number,
		sockets:  map[uint64]*socket{},
		doubtful: map[*socket]struct{}{},
		clients:  map[uint64]uint32{},
		ports:    map[uint16]int{},
	}
}

// see notes that this pass saw s.
func (p *protocolState) see(s *socket) {
	if s.seen != p.pass {
		s.seen = p.pass
		p.seen++
	}
}

// has tells whether a socket that is gone may be one of ours.
func (p *protocolState) has(g sockdiag.Gone) bool {
	return p.number == g.Protocol && (g.Port == 0 || p.ports[g.Port] > 0)
}

// lookAgain has the next dump, at once, tell whether a socket that is not
// reported yet still exists.
func (p *protocolState) lookAgain(s *socket, now time.Time) {
	p.waiting = append(p.waiting, s)
	p.plan.at(now)
}

// join makes s count for its key.
func (t *Tracker) join(s *socket) {
	s.reported = true
	if s.own {
		return
	}
	t.groups[s.key] = append(t.groups[s.key], s)
	t.dirty[s.key] = struct{}{}
}

// leave undoes join.
func (t *Tracker) leave(s *socket) {
	group := t.groups[s.key]
	i := slices.Index(group, s)
	if i < 0 {
		return
	}
	t.dirty[s.key] = struct{}{}
	if group = slices.Delete(group, i, i+1); len(group) > 0 {
		t.groups[s.key] = group
	} else {
		delete(t.groups, s.key)
	}
}

// listenerOf describes the sockets of one key. The first of them is its owner.
func listenerOf(k message.Key, sockets []*socket) message.Listener {
	first := sockets[0]
	l := message.Listener{Key: k, Ephemeral: true, Owner: message.Owner{
		Container:   first.container.Name,
		ContainerID: first.container.ID,
		Image:       first.container.Image,
		Process:     first.process.Name,
		PID:         first.process.PID,
	}}
	for _, s := range sockets {
		l.Ephemeral = l.Ephemeral && s.ephemeral
	}
	return l
}
