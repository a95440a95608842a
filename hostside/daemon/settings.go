package daemon

import (
	"reflect"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Settings is what a daemon does. All of it may change while it runs. What is
// passed to New or Apply must not be changed afterwards.
type Settings struct {
	// HostNetworking is control.On, Off or Blocked, and Reason why it is not on.
	HostNetworking string
	Reason         string
	// Isolation, Evidence and Warnings are shown by status as they are.
	Isolation string
	Evidence  []string
	Warnings  []string

	Policy forward.Policy
	// Reach says which ports of this machine's loopback guests reach while host
	// networking is on.
	Reach  reach.Policy
	Links  []Link
	Limits Limits
}

// Link says how a guest is reached.
type Link struct {
	Name string
	URL  string
	// KeyFile holds the link's key. Empty means the home's own, which the first
	// start makes.
	KeyFile string
}

// Limits bound what one link may cost; zeros are the defaults of the packages
// that keep them.
type Limits struct {
	Listeners   int
	Flows       int           // each way
	UDPIdle     time.Duration // of a client's association
	QueuedBytes int64         // held for sockets that do not take them
}

// failClosed is s, or where its forwarding policy cannot be used, s with host
// networking off: what was in force before may allow what s forbids. What the
// settings cannot express is checked where they are read, so this is no user's
// mistake.
func (s Settings) failClosed() Settings {
	if err := s.Policy.Validate(); err != nil && s.on() {
		s.HostNetworking, s.Reason = control.Blocked, "the forwarding policy cannot be used: "+err.Error()
	}
	return s
}

func (s Settings) on() bool { return s.HostNetworking == control.On }

// reachPolicy is the policy of host reach as it is in force.
func (s Settings) reachPolicy() reach.Policy {
	p := s.Reach
	p.Enabled = p.Enabled && s.on()
	return p
}

// reachOff says why agents are told that host reach is off; empty when they are
// not.
func (s Settings) reachOff() string {
	switch {
	case !s.on():
		return "host networking is " + s.HostNetworking
	case !s.Reach.Enabled:
		return "the settings say host_reach.enabled: false"
	}
	return ""
}

// aboutHost is what agents are told.
func (d *Daemon) aboutHost(s Settings) message.Host {
	return message.Host{Version: d.config.Version, HostReach: s.reachPolicy().Enabled,
		UDPIdleMilliseconds: int(s.Limits.UDPIdle / time.Millisecond)}
}

// Apply makes the daemon do what the settings say. It changes what differs from
// before and nothing else; what is to close is closed when it returns. Links follow
// a moment later.
func (d *Daemon) Apply(s Settings) {
	s = s.failClosed()
	d.applying.Lock()
	defer d.applying.Unlock()
	d.mu.Lock()
	before := d.settings
	d.settings = s
	links := d.links
	d.mu.Unlock()

	if before.on() && !s.on() {
		d.engine.Enable(false)
	}
	if !reflect.DeepEqual(before.reachPolicy(), s.reachPolicy()) {
		d.reach.SetPolicy(s.reachPolicy())
	}
	if before.on() && !s.on() {
		for _, l := range links {
			l.guest.cutFlows()
		}
	}
	if !reflect.DeepEqual(before.Policy, s.Policy) {
		if err := d.engine.SetPolicy(s.Policy); err != nil { // which is off, then
			d.config.Logger.Error(err)
		}
	}
	for _, l := range links {
		l.wantAgent(s)
	}
	if before.Limits != s.Limits {
		d.engine.SetMaxListeners(s.Limits.Listeners)
		for _, l := range links {
			l.guest.setLimits(s.Limits)
		}
	}
	if !reflect.DeepEqual(before, s) { // whatever it is, a link that could not be started may start now
		signal(d.linksDue)
	}
	if !before.on() && s.on() {
		d.engine.Enable(true)
	}
	if before, now := d.aboutHost(before), d.aboutHost(s); before != now {
		for _, l := range links {
			l.guest.tellHost(now)
		}
	}
	if before.HostNetworking != s.HostNetworking {
		log := d.config.Logger.Infof
		if s.HostNetworking == control.Blocked {
			log = d.config.Logger.Warnf
		}
		text := "host networking is " + s.HostNetworking
		if s.Reason != "" {
			text += ": " + s.Reason
		}
		log("%s", text)
	}
}
