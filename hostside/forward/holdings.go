package forward

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// holding is where an open socket is bound.
type holding struct {
	protocol message.Protocol
	at       netip.AddrPort
}

func (s slot) held() holding { return holding{s.protocol, s.at} }

// holdings are the engine's open sockets for whoever only asks whose an address
// is. They have a lock of their own, because the engine's is held while thousands
// of sockets open, one after the other; this one for each of them.
type holdings struct {
	mu   sync.RWMutex
	open map[holding]struct{}

	rivals rivals
}

// change opens or closes a socket, and keeps those who ask waiting meanwhile: no
// answer is older than the socket. do tells whether it is open afterwards.
func (x *holdings) change(h holding, do func() (open bool)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !do() {
		delete(x.open, h)
		return
	}
	if x.open == nil {
		x.open = make(map[holding]struct{})
	}
	x.open[h] = struct{}{}
}

// of tells whether a socket is bound to the address, and whether one is to the
// wildcard of its family.
func (x *holdings) of(h holding) (exact, wide bool) {
	all := wildcard6
	if h.at.Addr().Is4() {
		all = wildcard4
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, exact = x.open[h]
	_, wide = x.open[holding{h.protocol, netip.AddrPortFrom(all, h.at.Port())}]
	return exact, wide
}

// Holds tells whether a socket of this engine would get what is sent to an
// address of this machine. It waits for at most the opening of one socket, or,
// on systems where wildcards can be undercut, for a look at who does.
func (e *Engine) Holds(protocol message.Protocol, addr netip.AddrPort) bool {
	h := holding{protocol, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
	exact, wide := e.holdings.of(h)
	if exact || !wide {
		return exact
	}
	return !e.cfg.undercuts || !e.holdings.rivals.present(e.ctx, h, e.cfg.find)
}

// rivals remembers for a moment which addresses other processes have taken
// beside a wildcard of ours. Finding out is a scan of the system, and a guest
// decides how often it is asked for.
type rivals struct {
	mu    sync.Mutex
	known map[holding]rival
}

type rival struct {
	present bool
	until   time.Time
}

const (
	// rivalsFor is how long an answer holds.
	rivalsFor = time.Second
	// maxRivals is how many answers are kept at once.
	maxRivals = 256
	// rivalTimeout bounds the scan, which takes milliseconds to hundreds of them.
	rivalTimeout = 2 * time.Second
)

// present tells whether another process has the address itself. One that the
// system does not show is taken for none: the address is then refused, where the
// other answer could make a loop.
func (r *rivals) present(ctx context.Context, h holding,
	find func(context.Context, []portowner.Port) ([]portowner.Owner, error)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if known, ok := r.known[h]; ok && now.Before(known.until) {
		return known.present
	}
	ctx, cancel := context.WithTimeout(ctx, rivalTimeout)
	defer cancel()
	owners, err := find(ctx, []portowner.Port{{Protocol: string(h.protocol), At: h.at}})
	present := err == nil && len(owners) == 1 && owners[0].PID != 0 && owners[0].PID != os.Getpid()
	if r.known == nil || len(r.known) >= maxRivals {
		r.known = make(map[holding]rival)
	}
	r.known[h] = rival{present, now.Add(rivalsFor)}
	return present
}
