package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/dockeragent"
	"github.com/vmbridge/vmbridge/hostside/guestinstall"
	"github.com/vmbridge/vmbridge/hostside/sandbox"
	"github.com/vmbridge/vmbridge/hostside/vhostdevice"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/transport"
)

// runningLink is a link of the settings and what was started for it.
type runningLink struct {
	Link
	guest   *guest
	sandbox *sandbox.Sandbox    // the throw-away guest, where the link is one
	docker  *dockeragent.Keeper // of the agent, where an engine runs it
	key     string              // file of the key, where the link has one
	err     error               // why the link could not be started

	cancel context.CancelFunc
	work   sync.WaitGroup
}

// startLinks starts the first links. Without them there is nothing to run for:
// one that cannot be started is an error.
func (d *Daemon) startLinks(ctx context.Context) error {
	for _, l := range d.current().Links {
		started := d.startLink(ctx, l)
		d.setLinks(append(d.linksNow(), started))
		d.guestNews() // it may have spoken before it was listed
		if started.err != nil {
			return fmt.Errorf("link %s: %w", l.Name, started.err)
		}
	}
	return nil
}

// retryLinks is how long a link that could not be started waits for the next try.
const retryLinks = 5 * time.Second

// keepLinks keeps the links to the settings until ctx ends. It has a goroutine of
// its own, because a link may take its time to start or to end, which must not
// hold up what else the settings say.
func (d *Daemon) keepLinks(ctx context.Context) {
	for {
		var again <-chan time.Time
		if slices.ContainsFunc(d.linksNow(), func(l *runningLink) bool { return l.err != nil }) {
			again = time.After(retryLinks)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.linksDue:
		case <-again:
		}
		d.changeLinks(ctx, d.current().Links)
	}
}

// changeLinks brings the links in line with the settings; those that stay are not
// touched. One that cannot be started says so in the status, and once in the log.
func (d *Daemon) changeLinks(ctx context.Context, wanted []Link) {
	before := d.linksNow()
	find := func(w Link) *runningLink {
		i := slices.IndexFunc(before, func(l *runningLink) bool { return l.Link == w })
		if i < 0 {
			return nil
		}
		return before[i]
	}
	var leave []*runningLink
	for _, l := range before {
		if l.err != nil || !slices.Contains(wanted, l.Link) {
			leave = append(leave, l)
		}
	}
	if err := d.stop(leave); err != nil {
		d.config.Logger.WithError(err).Error("a link has not ended well")
	}
	links := make([]*runningLink, 0, len(wanted))
	for _, w := range wanted {
		old := find(w)
		if old != nil && old.err == nil {
			links = append(links, old)
			continue
		}
		l := d.startLink(ctx, w)
		if l.err != nil && (old == nil || old.err.Error() != l.err.Error()) {
			l.guest.log.WithError(l.err).Error("the link cannot be started; trying again")
		}
		links = append(links, l)
	}
	d.setLinks(links)
	// Some have gone, and some that have come may have spoken before they were
	// listed.
	d.guestNews()
}

func (d *Daemon) linksNow() []*runningLink {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.links
}

// setLinks replaces the list, which others may be reading. What has been applied
// while a link that is new there was being started is applied to it now.
func (d *Daemon) setLinks(links []*runningLink) {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.mu.Lock()
	before, s := d.links, d.settings
	d.links = slices.Clip(links)
	d.mu.Unlock()
	for _, l := range links {
		if !slices.Contains(before, l) {
			l.guest.catchUp(s.Limits, d.aboutHost(s))
			l.wantAgent(s)
		}
	}
}

// stop ends links, all at once, and waits for them.
func (d *Daemon) stop(links []*runningLink) error {
	for _, l := range links {
		l.cancel()
	}
	var errs []error
	for _, l := range links {
		l.work.Wait()
		d.reach.Forget(l.Name)
		if l.docker != nil {
			l.docker.Close()
		}
		if l.sandbox != nil {
			errs = append(errs, l.sandbox.Close())
		}
	}
	return errors.Join(errs...)
}

// startLink makes what a link needs and keeps it up in the background.
func (d *Daemon) startLink(ctx context.Context, link Link) *runningLink {
	ctx, cancel := context.WithCancel(ctx)
	l := &runningLink{Link: link, guest: newGuest(ctx, link, d), cancel: cancel}
	if l.err = d.connect(ctx, l); l.err != nil {
		l.guest.cannotStart(l.err)
	}
	return l
}

func (d *Daemon) connect(ctx context.Context, l *runningLink) error {
	endpoint, err := transport.Parse(l.URL)
	if err != nil {
		return err
	}
	var key []byte
	if endpoint.NeedsKey() || endpoint.Scheme() == transport.Sandbox {
		k, file, err := d.linkKey(l.Link)
		if err != nil {
			return err
		}
		key, l.key = k[:], file
	}
	if endpoint.Scheme() == transport.Sandbox {
		l.sandbox, err = sandbox.Start(ctx, sandbox.Config{
			Name: l.Name, Home: d.config.Home, KeyFile: l.key, Logger: d.config.Logger,
		})
		if err != nil {
			return err
		}
		if endpoint, err = transport.Parse(l.sandbox.URL()); err != nil {
			return err
		}
	}
	g := l.guest
	if warning := endpoint.Warning(); warning != "" {
		g.log.Warn(warning)
	}
	opts := transport.DialOptions{Stderr: g.stderr}
	dial := func(ctx context.Context) (net.Conn, error) { return endpoint.Dial(ctx, opts) }
	if endpoint.Scheme() == transport.VhostUser {
		if dial, err = d.deviceDialer(l, endpoint); err != nil {
			return err
		}
	}
	var timeout, answerTimeout time.Duration
	way, isPreset := endpoint.Way()
	switch {
	case isPreset:
		dial, timeout = g.starter(way).Dial, guestinstall.StartTimeout
	case endpoint.Scheme() == transport.Docker:
		if l.docker, err = d.dockerKeeper(l, endpoint); err != nil {
			return err
		}
		dial, timeout = l.docker.Dial, dockeragent.DialTimeout
	case endpoint.Scheme() == transport.Exec:
		answerTimeout = guestinstall.LoginTimeout // the command runs, but may have to log in first
	}
	l.work.Go(func() { g.run(ctx, key, endpoint.MaxConns(), dial, timeout, answerTimeout) })
	return nil
}

// starter runs the agent in a VM of somebody else's.
func (g *guest) starter(way transport.Way) *guestinstall.Starter {
	return &guestinstall.Starter{
		Way:    way,
		Agent:  guestinstall.Agent,
		Out:    func(line string) { g.log.Info("guest: " + line) },
		Stderr: g.shellStderr,
	}
}

// dockerKeeper keeps an agent in a container of an engine.
func (d *Daemon) dockerKeeper(l *runningLink, endpoint transport.Endpoint) (*dockeragent.Keeper, error) {
	g := l.guest
	keeper, err := dockeragent.New(dockeragent.Config{
		Context: endpoint.DockerContext(), Home: d.config.Home, Link: l.Name, Version: d.config.Version,
		Log: g.log, Stderr: g.agentStderr, Isolation: g.engineTells,
	})
	if err != nil {
		return nil, err
	}
	l.docker = keeper
	l.wantAgent(d.current())
	return keeper, nil
}

// wantAgent has an engine run the agent, or end it. While host networking is blocked it
// stays: it may be what shows why.
func (l *runningLink) wantAgent(s Settings) {
	if l.docker != nil {
		l.docker.Want(s.HostNetworking != control.Off)
	}
}

// deviceDialer dials a guest behind a device of ours, which runs in a process of
// its own and stays when the link ends: it is looked for, or started, every time.
func (d *Daemon) deviceDialer(l *runningLink, endpoint transport.Endpoint) (func(context.Context) (net.Conn, error), error) {
	keeper, err := vhostdevice.NewKeeper(endpoint, filepath.Join(d.config.Home, "devices", l.Name+".log"), l.guest.log)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		if err := keeper.Ensure(ctx); err != nil {
			return nil, err
		}
		return endpoint.HybridEndpoint().Dial(ctx, transport.DialOptions{})
	}, nil
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
