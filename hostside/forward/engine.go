package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/hostside/product"
	"github.com/vmbridge/vmbridge/vmbridge/link"
)

// Carrier takes the host's clients to one guest. One that outlives the sessions
// of its link is best: replacing it reopens the link's UDP sockets.
type Carrier interface {
	// CarryTCP takes over an accepted connection for the guest's address, and
	// returns at once.
	CarryTCP(conn *net.TCPConn, guest netip.AddrPort, stats *link.Stats)
	// CarryUDP serves the socket for the guest's address until it is closed,
	// and closes it. Peers that keep refuses are dropped; nil keeps all. Closing
	// must not find it waiting for anything but the socket.
	CarryUDP(conn *net.UDPConn, guest netip.AddrPort, keep func(peer netip.Addr) bool, stats *link.Stats) error
	// CutRetired ends what it carries for Stats that are retired, at once. What
	// the methods above are given later for such Stats is not to be carried.
	CutRetired()
}

// DefaultMaxListeners is the limit of listeners per link: more than a real guest
// has, and what a hostile one may cost.
const DefaultMaxListeners = 20000

// Config of an Engine. Only Log must be set.
type Config struct {
	Policy  Policy // one that validates
	Enabled bool
	// MaxListeners bounds what one link may report; 0 is DefaultMaxListeners.
	MaxListeners int
	// MaxSockets bounds the host sockets of all links. 0 leaves a tenth of the
	// process's descriptors to the connections.
	MaxSockets int
	// VMs is what each link says of the VM that it leads to. Nil: nothing.
	VMs func() map[string]product.VM
	Log logrus.FieldLogger

	system // tests replace it
}

// system is what the engine needs of the operating system.
type system struct {
	lingers bool
	prompts bool
	// undercuts: another process can have a specific address beside our
	// wildcard, and then gets what is sent there.
	undercuts bool
	open      func(s slot, r *route) (hostSocket, error)
	find      func(ctx context.Context, ports []portowner.Port) ([]portowner.Owner, error)
	judge     func(ctx context.Context, links map[string]product.VM, held []product.Held) []product.Verdict
}

// Engine opens and closes the host's sockets. Its methods may be called at any
// time from anywhere, but not from a Carrier's CarryUDP before it lets go of the
// socket.
type Engine struct {
	cfg    Config
	log    logrus.FieldLogger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines of the engine and of its sockets

	holdings holdings

	wake    chan struct{} // the worker has something to do
	lookUp  chan struct{} // the namer has something to do
	lastErr atomic.Int64  // when an accept error was logged, Unix nanoseconds

	mu       sync.Mutex // guards the rest, and everything reached from it
	closed   bool
	enabled  bool
	policy   Policy
	most     int // listeners of one link
	links    map[string]*linkState
	groups   map[groupKey]*group
	touched  []*group                // to be settled before the lock is released
	cut      map[*linkState]struct{} // whose retired flows are to be cut before that
	seq      uint64
	sockets  int
	warned   bool // of the firewall
	retries  retryQueue
	dirty    map[*forward]struct{} // to be mentioned when they may be
	unnamed  []naming
	watchers map[*Watcher]struct{}
}

// New starts an engine without links.
func New(cfg Config) *Engine {
	if cfg.MaxSockets == 0 {
		n := bind.Descriptors()
		cfg.MaxSockets = n - n/10
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel,
		wake: make(chan struct{}, 1), lookUp: make(chan struct{}, 1),
		enabled: cfg.Enabled, policy: cfg.Policy, most: cmp.Or(cfg.MaxListeners, DefaultMaxListeners),
		links:    make(map[string]*linkState),
		cut:      make(map[*linkState]struct{}),
		groups:   make(map[groupKey]*group),
		dirty:    make(map[*forward]struct{}),
		watchers: make(map[*Watcher]struct{}),
	}
	if e.cfg.open == nil {
		e.cfg.system = system{lingers: bind.Lingers(runtime.GOOS), prompts: bind.Prompts(runtime.GOOS),
			undercuts: runtime.GOOS == "darwin" || runtime.GOOS == "windows",
			open:      e.openSocket, find: portowner.Find, judge: product.Judge}
	}
	e.wg.Go(e.work)
	e.wg.Go(e.nameOwners)
	return e
}

// Close releases every host socket and waits for the goroutines. Connections
// that were handed to a Carrier are its own.
func (e *Engine) Close() {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		for _, g := range e.groups {
			for _, h := range g.held {
				e.closeSocket(g, h)
			}
		}
		for w := range e.watchers {
			w.end()
		}
		e.groups, e.links, e.sockets = nil, nil, 0
	}
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
}

// Enable turns host networking on or off. Off, every host socket is closed and
// nothing is carried any more when it returns.
func (e *Engine) Enable(on bool) {
	e.change(func() {
		if e.enabled != on {
			e.enabled = on
			e.replanAll()
		}
	})
}

// SetPolicy applies a policy to what is open now: sockets that it does not want
// any more are closed when it returns, and what they carried has ended. Where it
// wants what is there, nothing happens. A policy that does not validate is refused
// and changes nothing.
func (e *Engine) SetPolicy(p Policy) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("forwarding policy: %w", err)
	}
	e.change(func() {
		e.policy = p
		e.replanAll()
	})
	return nil
}

// SetMaxListeners changes the limit of Config.MaxListeners; 0 is the default. A
// lower one closes nothing. With a higher one, what was refused before opens when
// it is reported again: the next time that its link comes up.
func (e *Engine) SetMaxListeners(n int) {
	e.change(func() {
		e.most = cmp.Or(n, DefaultMaxListeners)
		for _, l := range e.links {
			l.over = false // to be told again
		}
	})
}

// change runs fn with the lock, settles what it touched and lets the worker
// tell of it.
func (e *Engine) change(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	fn()
	e.cutRetired()
	e.settleTouched()
	signal(e.wake)
}

// signal makes sure that the channel's reader looks again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Forwards lists what may be mentioned: not the TCP listeners of the last 50 ms,
// nor UDP clients, nor a new one of which it is not known yet who has its port.
func (e *Engine) Forwards() []Forward {
	now := time.Now()
	return e.list(func(f *forward) bool {
		return !f.plan.hidden && !f.mentionAt().After(now) && !(f.told == (told{}) && f.pending())
	})
}

// ForwardsOf lists everything that is known of a port, the guests' or this
// machine's, however young.
func (e *Engine) ForwardsOf(port uint16) []Forward {
	return e.list(func(f *forward) bool { return f.listener.Port == port || f.port() == port })
}

func (e *Engine) list(want func(*forward) bool) []Forward {
	list := []Forward{}
	e.mu.Lock()
	for _, l := range e.links {
		for _, f := range l.forwards {
			if want(f) {
				list = append(list, f.snapshot())
			}
		}
	}
	e.mu.Unlock()
	sortForwards(list)
	return list
}

// errTooMany is the failure of a forward beyond Config.MaxSockets.
var errTooMany = errors.New("too many open sockets")

// open opens a socket for a claim, within the limit.
func (e *Engine) open(g *group, c *claim) error {
	if e.sockets >= e.cfg.MaxSockets && e.cfg.MaxSockets > 0 {
		return fmt.Errorf("%w: the limit is %d of %d descriptors (ulimit -n)", errTooMany, e.cfg.MaxSockets, bind.Descriptors())
	}
	if e.cfg.prompts && c.host.Addr().IsUnspecified() && !e.warned {
		e.warned = true
		e.log.Info("the system's firewall may ask about incoming connections now: a guest listens on all addresses " +
			"(exposure: loopback does without)")
	}
	h := &held{at: c.host.Addr(), gen: c.fwd.link.gen, claim: c, opened: time.Now()}
	s := slot{protocol: g.protocol, at: c.host,
		ended: func(err error) { e.ended(g.groupKey, h, err) }}
	var err error
	e.holdings.change(s.held(), func() bool {
		h.sock, err = e.cfg.open(s, c.route())
		return err == nil
	})
	if err != nil {
		return err
	}
	h.serve(c, e.cfg.lingers)
	g.held = append(g.held, h)
	e.sockets++
	return nil
}

// closeSocket has released the port when it returns.
func (e *Engine) closeSocket(g *group, h *held) {
	e.holdings.change(holding{g.protocol, netip.AddrPortFrom(h.at, g.port)}, func() bool {
		h.sock.close()
		return false
	})
}

// ended hears that a Carrier has stopped serving a UDP socket that was not
// closed.
func (e *Engine) ended(k groupKey, h *held, err error) {
	e.change(func() {
		g := e.groups[k]
		if g == nil || !g.drop(h) {
			return
		}
		e.closeSocket(g, h)
		e.sockets--
		// It reopens at once, unless it has just done so: then it waits.
		if time.Since(h.opened) < retryConflict {
			h.claim.fails(e, fmt.Sprintf("the link stopped serving the socket: %v", err))
			e.retryAt(g, retryConflict)
			return
		}
		e.touch(g)
	})
}

// key of the group that a claim belongs to.
func (c *claim) group() groupKey {
	return groupKey{protocol: c.fwd.listener.Protocol, port: c.host.Port(), v6: c.host.Addr().Is6()}
}

// route is where the clients of a claim's socket go.
func (c *claim) route() *route {
	return &route{carrier: c.fwd.link.carrier, guest: c.guest, all: c.fwd.listener.Address.IsUnspecified(), stats: &c.stats}
}
