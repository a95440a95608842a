package hostreach

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/guestside/tun"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Config of a Reach.
type Config struct {
	// Off keeps host reach off, whatever the hosts want.
	Off bool
	// IPv4 and IPv6 are the host addresses to use; zero chooses some that
	// overlap no route.
	IPv4, IPv6 netip.Addr
	Log        logrus.FieldLogger
}

// Reach is host reach for all sessions of an agent. Flows go to the session that
// asked for it last.
type Reach struct {
	config Config
	work   sync.WaitGroup // the goroutines that start, stop and watch the service

	mu       sync.Mutex
	sessions []*link.Session // that want it, the latest last
	wanted   bool
	settling bool // work is under way
	// wake ends the wait for another agent to end.
	wake    chan struct{}
	closed  bool
	service *service // nil while stopped
	udpIdle time.Duration
	state   message.Feature
	changed chan struct{}
}

// New returns a Reach that waits for a host to ask.
func New(cfg Config) *Reach {
	r := &Reach{config: cfg, state: message.Feature{State: message.HostReachOff}, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
	if cfg.Off {
		r.state.Reason = "the agent was started with --host-reach off"
	}
	return r
}

// State tells how host reach stands, and gives a channel that is closed when
// that changes.
func (r *Reach) State() (message.Feature, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.changed
}

// Want notes what a session wants. It does not block.
func (r *Reach) Want(s *link.Session, want bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(s)
	if r.closed {
		return
	}
	if want {
		r.sessions = append(r.sessions, s)
	}
	r.wanted = len(r.sessions) > 0
	r.settle()
	r.tell() // a host that asks is answered, even where nothing changes
	r.lookAgain()
}

// SetUDPIdle changes how long an association of UDP lives without a datagram; 0 is
// the default. The last host that says so decides for all.
func (r *Reach) SetUDPIdle(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.udpIdle = d
	if r.service != nil {
		r.service.associations.SetIdle(d)
	}
}

// Gone notes that a session is over. What runs keeps running: the host will be
// back, and refuses meanwhile.
func (r *Reach) Gone(s *link.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(s)
}

// drop forgets a session. mu is held.
func (r *Reach) drop(s *link.Session) {
	r.sessions = slices.DeleteFunc(r.sessions, func(other *link.Session) bool { return other == s })
}

// Close stops everything and waits for it.
func (r *Reach) Close() {
	r.mu.Lock()
	r.closed, r.wanted = true, false
	r.settle()
	r.lookAgain()
	r.mu.Unlock()
	r.work.Wait()
}

// session is the one that carries, or nil.
func (r *Reach) session() *link.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) == 0 {
		return nil
	}
	return r.sessions[len(r.sessions)-1]
}

// settle has what runs follow what is wanted. mu is held.
func (r *Reach) settle() {
	if r.settled() || r.config.Off {
		return
	}
	r.state = message.Feature{State: message.HostReachOff, Reason: "it is being turned off"}
	if r.wanted {
		r.state.Reason = "it is being turned on"
	}
	r.tell()
	if !r.settling {
		r.settling = true
		r.work.Go(r.startAndStop)
	}
}

// settled tells whether what runs is what is wanted. mu is held.
func (r *Reach) settled() bool {
	if r.service == nil {
		return !r.wanted
	}
	return r.wanted && !r.service.broken()
}

// lookAgain ends the wait for another agent to end.
func (r *Reach) lookAgain() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// How long another agent's device is waited for before the next look. Finding out
// whose it is reads all of /proc.
const (
	firstBusyWait = 250 * time.Millisecond
	maxBusyWait   = 10 * time.Second
)

// startAndStop works until what runs is what is wanted, or cannot be had.
func (r *Reach) startAndStop() {
	busy, wait := "", firstBusyWait // why another agent keeps it from starting
	for {
		r.mu.Lock()
		running := r.service
		if r.settled() {
			r.settling = false
			switch {
			case running != nil:
				r.state = running.state() // somebody has changed his mind
				r.tell()
			case busy != "":
				r.state = message.Feature{State: message.HostReachOff}
				r.tell()
			}
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()

		if running != nil {
			if running.broken() {
				r.config.Log.Warn("host reach starts again: somebody has removed its device")
			}
			if err := running.close(); err != nil {
				r.config.Log.WithError(err).Warn("host reach did not stop cleanly")
			}
			r.became(nil, message.Feature{State: message.HostReachOff})
			continue
		}
		service, err := start(r.config, r.session)
		if err == nil {
			r.config.Log.WithField("addresses", service.addresses()).Info("host reach is on")
			r.became(service, service.state())
			r.work.Go(func() { r.watch(service) })
			continue
		}
		if why := reason(err); errors.Is(err, tun.ErrBusy) {
			// The agent of a host that has gone may take a while to notice.
			if why != busy {
				busy = why
				r.config.Log.WithError(err).Warn("host reach waits for another agent to end")
				r.became(nil, message.Feature{State: message.HostReachUnavailable, Reason: why})
			}
			select {
			case <-time.After(wait):
			case <-r.wake:
			}
			wait = min(2*wait, maxBusyWait)
			continue
		}
		r.config.Log.WithError(err).Warn("host reach is unavailable")
		r.mu.Lock()
		// The next host that asks has it tried again.
		r.wanted = false
		r.mu.Unlock()
		r.became(nil, message.Feature{State: message.HostReachUnavailable, Reason: reason(err)})
	}
}

// watch waits for the end of what runs.
func (r *Reach) watch(s *service) {
	<-s.ended()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
}

// became notes what runs and tells those who wait for changes.
func (r *Reach) became(s *service, state message.Feature) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.service, r.state = s, state
	if s != nil {
		s.associations.SetIdle(r.udpIdle)
	}
	r.tell()
}

// tell wakes those who wait for changes. mu is held.
func (r *Reach) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// reason gives the first line of an error: the kernel's verifier may add pages.
func reason(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
