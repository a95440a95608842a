package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/hostside/sandbox"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// Link says how a guest is reached.
type Link struct {
	Name string
	URL  string
	// KeyFile holds the link's key. Empty means the home's own, which the first
	// start makes.
	KeyFile string
}

// Config of a daemon.
type Config struct {
	// Home is the directory of keys, state and control socket.
	Home  string
	Links []Link
	// Enabled is the toggle at the start.
	Enabled bool
	// SaveEnabled keeps a changed toggle over restarts.
	SaveEnabled func(bool) error
	Policy      forward.Policy
	// Reach says which ports of this machine's loopback guests reach while host
	// networking is on.
	Reach   reach.Policy
	Logger  *logrus.Logger
	Version string
	// Ready, when set, is told once that the control socket answers.
	Ready func()
}

// Daemon is a running daemon. It implements control.Backend.
type Daemon struct {
	config Config
	since  time.Time
	engine *forward.Engine
	reach  *reach.Reach
	guests []*guest
	// sandboxes are the throw-away guests by link name.
	sandboxes map[string]*sandbox.Sandbox
	keys      map[string]string // key files by link name

	mu      sync.Mutex
	enabled bool
	changed chan struct{}
}

// Run is the daemon: it returns when ctx ends, with everything released, or
// when it cannot start.
func Run(ctx context.Context, config Config) (err error) {
	if err := control.MakeHome(config.Home); err != nil {
		return err
	}
	server, err := control.Listen(config.Home, config.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &Daemon{
		config: config, since: time.Now(), enabled: config.Enabled,
		engine: forward.New(forward.Config{
			Policy: config.Policy, Enabled: config.Enabled, Log: config.Logger,
		}),
		sandboxes: map[string]*sandbox.Sandbox{},
		keys:      map[string]string{},
		changed:   make(chan struct{}),
	}
	d.reach = reach.New(reach.Config{Policy: d.reachPolicy(), Own: d.engine.Holds, Log: config.Logger})
	defer func() {
		for _, s := range d.sandboxes {
			err = errors.Join(err, s.Close())
		}
	}()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	defer d.reach.Close()
	defer d.engine.Close()
	// The host's ports are free at once; the rest may take its time.
	defer context.AfterFunc(ctx, d.engine.Close)()
	for _, l := range config.Links {
		if err := d.startLink(ctx, &work, l); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	work.Go(func() { d.follow(ctx) })
	config.Logger.WithFields(logrus.Fields{
		"version": config.Version, "home": config.Home, "host_networking": onOff(config.Enabled),
	}).Info("daemon started")
	if config.Ready != nil {
		config.Ready()
	}
	err = server.Serve(ctx, d)
	config.Logger.Info("daemon stops")
	return err
}

// startLink makes what a link needs and keeps it up in the background.
func (d *Daemon) startLink(ctx context.Context, work *sync.WaitGroup, l Link) error {
	endpoint, err := transport.Parse(l.URL)
	if err != nil {
		return err
	}
	var key []byte
	if endpoint.NeedsKey() || endpoint.Scheme() == transport.Sandbox {
		k, file, err := d.linkKey(l)
		if err != nil {
			return err
		}
		key, d.keys[l.Name] = k[:], file
	}
	if endpoint.Scheme() == transport.Sandbox {
		s, err := sandbox.Start(ctx, sandbox.Config{
			Name: l.Name, Home: d.config.Home, KeyFile: d.keys[l.Name], Logger: d.config.Logger,
		})
		if err != nil {
			return err
		}
		d.sandboxes[l.Name] = s
		if endpoint, err = transport.Parse(s.URL()); err != nil {
			return err
		}
	}
	g := newGuest(l.Name, l.URL, d)
	d.guests = append(d.guests, g)
	if warning := endpoint.Warning(); warning != "" {
		g.log.Warn(warning)
	}
	opts := transport.DialOptions{Stderr: func(line string) { g.log.WithField("stream", "stderr").Info(line) }}
	work.Go(func() {
		g.run(ctx, key, endpoint.MaxConns(), func(ctx context.Context) (net.Conn, error) { return endpoint.Dial(ctx, opts) })
	})
	return nil
}

// linkKey reads the link's key. The home's own is made when it is missing; a
// file that the user named must be there.
func (d *Daemon) linkKey(l Link) (key linkkey.Key, file string, err error) {
	if l.KeyFile != "" {
		key, err = linkkey.Load(l.KeyFile)
		return key, l.KeyFile, err
	}
	if file, err = linkkey.Path(d.config.Home, l.Name); err != nil {
		return key, "", err
	}
	key, err = linkkey.LoadOrCreate(file)
	return key, file, err
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

// Changed implements control.Backend.
func (d *Daemon) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// SetEnabled implements control.Backend. The setting is kept even where it was
// only --enable that turned host networking on for this run.
func (d *Daemon) SetEnabled(_ context.Context, enabled bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.config.SaveEnabled(enabled); err != nil {
		return err
	}
	if d.enabled == enabled {
		return nil
	}
	d.enabled = enabled
	d.engine.Enable(enabled)
	d.reach.SetPolicy(d.reachPolicy())
	for _, g := range d.guests {
		if !enabled {
			g.cutFlows()
		}
		g.tellHost(d.aboutHost())
	}
	d.config.Logger.Infof("host networking turned %s", onOff(enabled))
	return nil
}

// reachPolicy is the policy of host reach as it is in force.
func (d *Daemon) reachPolicy() reach.Policy {
	p := d.config.Reach
	p.Enabled = p.Enabled && d.enabled
	return p
}

// aboutHost is what agents are told. mu is held, or nothing runs yet.
func (d *Daemon) aboutHost() message.Host {
	return message.Host{Version: d.config.Version, HostReach: d.reachPolicy().Enabled}
}

// reachOff says why agents are told that host reach is off; empty when they are
// not.
func (d *Daemon) reachOff() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.enabled:
		return "host networking is off"
	case !d.config.Reach.Enabled:
		return "the settings say host_reach.enabled: false"
	}
	return ""
}

// Key implements control.Backend.
func (d *Daemon) Key(name string) (string, error) {
	file, ok := d.keys[name]
	if !ok {
		if slices.ContainsFunc(d.guests, func(g *guest) bool { return g.name == name }) {
			return "", fmt.Errorf("link %q needs no key: %w", name, control.ErrNotFound)
		}
		return "", fmt.Errorf("link %q: %w: the links are %s", name, control.ErrNotFound, d.linkNames())
	}
	key, err := linkkey.Load(file)
	if err != nil {
		return "", err
	}
	return key.String(), nil
}

// Sandbox implements control.Backend.
func (d *Daemon) Sandbox(name string) (control.Sandbox, error) {
	if name == "" && len(d.sandboxes) == 1 {
		for only := range d.sandboxes {
			name = only
		}
	}
	s, ok := d.sandboxes[name]
	switch {
	case ok:
		return control.Sandbox{Link: name, NetNS: s.NetNS()}, nil
	case len(d.sandboxes) == 0:
		return control.Sandbox{}, fmt.Errorf("sandbox guest %w: none of the links (%s) is sandbox:", control.ErrNotFound, d.linkNames())
	case name == "":
		return control.Sandbox{}, fmt.Errorf("sandbox guest %w: there are several, name a link", control.ErrNotFound)
	}
	return control.Sandbox{}, fmt.Errorf("sandbox guest of link %q %w", name, control.ErrNotFound)
}

func (d *Daemon) linkNames() string {
	names := make([]string, 0, len(d.guests))
	for _, g := range d.guests {
		names = append(names, g.name)
	}
	return strings.Join(names, ", ")
}

func onOff(on bool) string {
	if on {
		return control.On
	}
	return control.Off
}

// Status implements control.Backend.
func (d *Daemon) Status() control.Status {
	d.mu.Lock()
	enabled := d.enabled
	d.mu.Unlock()
	status := control.Status{
		Version: d.config.Version, PID: os.Getpid(), Home: d.config.Home, Since: d.since,
		HostNetworking: onOff(enabled),
		Isolation:      control.Unknown,
		Counts:         control.Count(d.Ports(), d.Reached()),
	}
	off := d.reachOff()
	for _, g := range d.guests {
		link := g.status()
		if link.HostReach.State != message.HostReachUnavailable && off != "" {
			// Said now, even where the agent has yet to hear it.
			link.HostReach = control.Feature{State: control.Off, Reason: off}
		}
		status.Links = append(status.Links, link)
	}
	return status
}

// Ports implements control.Backend.
func (d *Daemon) Ports() []control.Port {
	forwards := d.engine.Forwards()
	ports := make([]control.Port, 0, len(forwards))
	for _, f := range forwards {
		p := control.Port{
			Protocol: string(f.Protocol), Guest: control.Address(f.Guest),
			Host:  make([]control.HostPort, 0, len(f.Host)),
			State: string(f.State), Reason: f.Reason,
			Owner: control.Owner{Container: f.Owner.Container, Image: f.Owner.Image,
				Process: f.Owner.Process, PID: f.Owner.PID},
			Link: f.Link, Flows: f.Flows, BytesIn: f.BytesIn, BytesOut: f.BytesOut, Since: f.Since,
		}
		for _, h := range f.Host {
			p.Host = append(p.Host, control.HostPort{Address: h.Address, Port: h.Port,
				State: string(h.State), Reason: h.Reason, Alias: h.Alias})
		}
		ports = append(ports, p)
	}
	slices.SortFunc(ports, control.Compare)
	return ports
}

// Reached implements control.Backend.
func (d *Daemon) Reached() []control.ReachedPort {
	ports := d.reach.Ports()
	reached := make([]control.ReachedPort, 0, len(ports))
	for _, p := range ports {
		reached = append(reached, control.ReachedPort{
			Link: p.Link, Protocol: string(p.Protocol), Port: p.Port,
			State: string(p.State), Reason: p.Reason,
			Flows: p.Flows, BytesIn: p.BytesIn, BytesOut: p.BytesOut,
			Since: p.Since, LastUse: p.LastUse,
		})
	}
	return reached
}
