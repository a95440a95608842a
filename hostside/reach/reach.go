package reach

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// Config of a Reach. Log must be set.
type Config struct {
	Policy Policy
	// Own tells whether a socket of this very process would answer at an address.
	// It is asked from several goroutines at once; nil means that there are none.
	Own func(protocol message.Protocol, addr netip.AddrPort) bool
	Log logrus.FieldLogger

	timeout  time.Duration // dialTimeout, unless a test is in a hurry
	maxFlows int           // half of the descriptors, unless a test has less to spare
}

// Reach dials for the guests of any number of links. Its methods may be called at
// any time from anywhere.
type Reach struct {
	own     func(message.Protocol, netip.AddrPort) bool
	log     logrus.FieldLogger
	pool    *udpbatch.Pool
	timeout time.Duration
	// maxFlows bounds the flows of all guests, each a descriptor: the rest is for
	// forwards. 0 is no bound but the sessions' own.
	maxFlows int
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup // of the flows' goroutines

	mu     sync.Mutex // guards the rest, and what is said to be under it
	policy Policy
	closed bool
	guests map[string]*guest // by link
	flows  map[flow]*usage
}

// flow is a TCP or UDP flow between its opening and its end.
type flow interface {
	// join tells which port the flow uses, before anything else. The lock is held.
	join(*usage)
	// cut ends the flow, whatever it is at. The lock is not held.
	cut(wire.Code)
}

// New returns a Reach that dials what the policy allows.
func New(cfg Config) *Reach {
	own := cfg.Own
	if own == nil {
		own = func(message.Protocol, netip.AddrPort) bool { return false }
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Reach{
		own: own, log: cfg.Log, pool: udpbatch.NewPool(2), timeout: cmp.Or(cfg.timeout, dialTimeout),
		maxFlows: cmp.Or(cfg.maxFlows, bind.Descriptors()/2), ctx: ctx, cancel: cancel,
		policy: cfg.Policy, guests: make(map[string]*guest), flows: make(map[flow]*usage),
	}
}

// Close ends all flows and waits for them. Those that come later are refused.
func (r *Reach) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut(wire.CodeShutdown, func(*usage) string { return "vmbridge has stopped" })
	r.cancel()
	r.work.Wait()
}

// SetPolicy applies a policy, whose lists must not change afterwards. Flows that it
// forbids are cut, others stay.
func (r *Reach) SetPolicy(p Policy) {
	r.mu.Lock()
	r.policy = p
	r.mu.Unlock()
	r.cut(wire.CodeDenied, func(u *usage) string { return p.forbids(u.protocol, u.port) })
}

// cut ends the flows of the ports for which there is a reason.
func (r *Reach) cut(code wire.Code, why func(*usage) string) {
	r.mu.Lock()
	var list []flow
	for f, u := range r.flows {
		if reason := why(u); reason != "" {
			u.became(Denied, reason)
			list = append(list, f)
		}
	}
	r.mu.Unlock()
	for _, f := range list {
		f.cut(code)
	}
}

// admit enters a flow that a guest opened. With a code other than 0 the flow is to
// be refused; else its goroutine, which the caller starts, ends with work.Done.
func (r *Reach) admit(f flow, link string, protocol message.Protocol, to netip.AddrPort) wire.Code {
	if !isLoopback(to.Addr()) {
		r.log.WithField("link", link).Debugf("refused a guest: %s %s is not localhost", protocol, to)
		return wire.CodeDenied
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return wire.CodeShutdown
	}
	u := r.guest(link).usage(protocol, to.Port())
	if reason := r.policy.forbids(protocol, to.Port()); reason != "" {
		u.became(Denied, reason)
		return wire.CodeDenied
	}
	if r.maxFlows > 0 && len(r.flows) >= r.maxFlows {
		u.became(Failed, fmt.Sprintf("the guests have %d flows, which is the limit", r.maxFlows))
		return wire.CodeResources
	}
	f.join(u)
	r.flows[f] = u
	r.work.Add(1)
	return 0
}

// note says what became of an attempt.
func (r *Reach) note(u *usage, s State, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u.became(s, reason)
}

// over hears that a flow has ended.
func (r *Reach) over(f flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.flows[f]; u != nil {
		u.touch()
		delete(r.flows, f)
	}
}

func (r *Reach) guest(link string) *guest {
	g := r.guests[link]
	if g == nil {
		g = newGuest(link)
		r.guests[link] = g
	}
	return g
}
