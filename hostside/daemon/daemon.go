package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/product"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Config of a daemon: what stays as it is while it runs.
type Config struct {
	// Home is the directory of keys, state and control socket.
	Home string
	// Settings are those at the start.
	Settings Settings
	// Keeper keeps the settings: what the control socket is asked to change goes
	// there, and comes back through Apply.
	Keeper control.Keeper
	// GuestsChanged is told that what Guests returns may have changed, by one
	// goroutine. What a guest listens on is not looked at before GuestsChanged has
	// returned after the first word of the guest's agent about itself.
	GuestsChanged func()
	Logger        *logrus.Logger
	Version       string
	// Ready, when set, is told once that the control socket answers.
	Ready func()
}

// Daemon is a daemon that runs or will. It implements control.Backend.
type Daemon struct {
	control.Keeper
	config Config
	since  time.Time
	engine *forward.Engine
	reach  *reach.Reach

	news     chan struct{} // GuestsChanged is due
	linksDue chan struct{} // the links are not those of the settings
	applying sync.Mutex    // held by Apply, and while links are listed

	mu       sync.Mutex // guards the rest, for a moment only
	settings Settings
	links    []*runningLink // in the order of the settings
	changed  chan struct{}
}

// New returns a daemon that Run starts.
func New(config Config) *Daemon {
	s := config.Settings.failClosed()
	d := &Daemon{
		Keeper: config.Keeper, config: config, since: time.Now(),
		settings: s,
		news:     make(chan struct{}, 1),
		linksDue: make(chan struct{}, 1),
		changed:  make(chan struct{}),
	}
	d.engine = forward.New(forward.Config{
		Policy: s.Policy, Enabled: s.on(), MaxListeners: s.Limits.Listeners, VMs: d.vms, Log: config.Logger,
	})
	d.reach = reach.New(reach.Config{Policy: s.reachPolicy(), Own: d.engine.Holds, Log: config.Logger})
	return d
}

// Run is the daemon: it returns when ctx ends, with everything released, or
// when it cannot start. It may be called once.
func (d *Daemon) Run(ctx context.Context) (err error) {
	defer d.reach.Close()
	defer d.engine.Close()
	if err := control.MakeHome(d.config.Home); err != nil {
		return err
	}
	server, err := control.Listen(d.config.Home, d.config.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The host's ports are free at once; the rest may take its time.
	defer context.AfterFunc(ctx, d.engine.Close)()
	defer func() { err = errors.Join(err, d.stop(d.linksNow())) }()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { d.follow(ctx) })
	work.Go(func() { d.tellOfGuests(ctx) })
	if err := d.startLinks(ctx); err != nil {
		return err
	}
	work.Go(func() { d.keepLinks(ctx) })
	d.config.Logger.WithFields(logrus.Fields{
		"version": d.config.Version, "home": d.config.Home, "host_networking": d.current().HostNetworking,
	}).Info("daemon started")
	if d.config.Ready != nil {
		d.config.Ready()
	}
	err = server.Serve(ctx, d)
	d.config.Logger.Info("daemon stops")
	return err
}

// follow wakes those who wait for changes of the ports.
func (d *Daemon) follow(ctx context.Context) {
	w := d.engine.Watch()
	defer w.Close()
	for {
		if _, err := w.Next(ctx); err != nil {
			return
		}
		d.mu.Lock()
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
	}
}

// current is a copy of the settings in force.
func (d *Daemon) current() Settings {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings
}

// vms is what the links say of the VMs that they lead to, those that are down too.
func (d *Daemon) vms() map[string]product.VM {
	vms := make(map[string]product.VM)
	for _, l := range d.current().Links {
		vms[l.Name] = product.OfLink(l.URL)
	}
	return vms
}

// Guest is what the isolation check needs to know of a link.
type Guest struct {
	Link string
	// Told says that the agent has told about itself; the rest is what it told.
	Told      bool
	Kernel    string
	Isolation *message.Isolation // nil for an agent that does not know of it
}

// Guests lists what the links lead to.
func (d *Daemon) Guests() []Guest {
	var guests []Guest
	for _, l := range d.linksNow() {
		guests = append(guests, l.guest.about())
	}
	return guests
}

// guestNews has GuestsChanged called.
func (d *Daemon) guestNews() { signal(d.news) }

// signal makes sure that the channel's reader looks again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tellOfGuests calls GuestsChanged when it is due.
func (d *Daemon) tellOfGuests(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.news:
		}
		heard := map[*guest]chan struct{}{}
		for _, l := range d.linksNow() {
			if c := l.guest.unjudged(); c != nil {
				heard[l.guest] = c
			}
		}
		if d.config.GuestsChanged != nil {
			d.config.GuestsChanged()
		}
		for g, c := range heard {
			g.judge(c)
		}
	}
}
