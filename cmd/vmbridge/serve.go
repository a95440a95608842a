package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/daemon"
	"github.com/vmbridge/vmbridge/hostside/discover"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// serve runs the daemon as planned, until ctx ends.
func serve(ctx context.Context, p plan, stdout io.Writer) error {
	c, err := newController(p.sources, p.keyFile, p.logger)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	var found []discover.Candidate
	if len(c.store.Effective().Links) == 0 {
		found = discover.Find(ctx, runtime.GOOS)
		c.byDefault = choose(found, runtime.GOOS)
	}
	first := c.work()
	if err := c.refuse(p.sources.Flags); err != nil {
		return err
	}
	if len(first.Links) == 0 {
		return noLink(p.sources.Path)
	}
	c.daemon = daemon.New(daemon.Config{
		Home:          p.home,
		Settings:      first,
		Keeper:        c,
		GuestsChanged: c.again,
		Logger:        p.logger,
		Version:       program.Version(version),
		Ready:         func() { writeBanner(stdout, first, found) },
	})
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() { c.follow(ctx) })
	return c.daemon.Run(ctx)
}

// refuse finds flags that policy or isolation forbids. Without the flag vmbridge
// runs, and waits until it may.
func (c *controller) refuse(flags []settings.Flag) error {
	now := c.store.Effective()
	for _, f := range flags {
		v := now.Value(f.Key)
		switch {
		case f.Key == enabledKey && now.PolicyError != nil:
			return fmt.Errorf("%w: %s: %w", control.ErrRefused, f.Name, unusablePolicy(now))
		case v.Locked && !now.Same(f):
			return fmt.Errorf("%w: %s: %w", control.ErrRefused, f.Name, &settings.LockedError{Key: f.Key, PolicyPath: now.PolicyPath})
		case f.Key == enabledKey && c.verdict.Refusal() != nil:
			return fmt.Errorf("%w: %s: %w", control.ErrRefused, f.Name, c.verdict.Refusal())
		}
	}
	return nil
}

// daemonSettings is what the settings ask of the daemon, the toggle apart.
func daemonSettings(s settings.Effective, keyFile string, byDefault settings.Link) daemon.Settings {
	to := daemon.Settings{
		Policy: forward.Policy{
			Exposure:        forward.Exposure(s.Exposure),
			LocalhostTwin:   s.LocalhostTwin,
			DenyPorts:       portRules(s.Ports.Deny),
			AllowPorts:      portRules(s.Ports.Allow),
			IgnorePorts:     portRules(s.Ports.Ignore),
			IgnoreProcesses: s.Ports.IgnoreProcesses,
		},
		Reach: reach.Policy{
			Enabled: s.HostReach.Enabled,
			Allow:   portRules(s.HostReach.Allow),
			Deny:    portRules(s.HostReach.Deny),
		},
		Limits: daemon.Limits{
			Listeners: s.Limits.Listeners, Flows: s.Limits.Flows,
			UDPIdle: s.Limits.UDPIdle, QueuedBytes: s.Limits.Memory,
		},
	}
	for i, r := range s.Ports.Rules {
		to.Policy.Rules = append(to.Policy.Rules, forward.Rule{
			Name:     fmt.Sprintf("ports.rules[%d]", i),
			Protocol: message.Protocol(r.Protocol), GuestAddress: r.GuestAddress, First: r.First, Last: r.Last,
			Container: r.Container, Image: r.Image, Process: r.Process,
			Ignore:      r.Action == settings.Ignore,
			HostAddress: r.HostAddress, HostPort: r.HostPort,
		})
	}
	for _, l := range linksOf(s.Links, byDefault) {
		to.Links = append(to.Links, daemon.Link{Name: l.Name, URL: l.URL, KeyFile: keyFile})
	}
	return to
}

// linksOf takes the default where none is configured, if there is one.
func linksOf(configured []settings.Link, byDefault settings.Link) []settings.Link {
	if len(configured) == 0 && byDefault.URL != "" {
		return []settings.Link{byDefault}
	}
	return configured
}

// portRules keeps nil, which the settings tell from an empty list, nil.
func portRules(ranges []settings.PortRange) []forward.PortRule {
	if ranges == nil {
		return nil
	}
	rules := make([]forward.PortRule, 0, len(ranges))
	for _, r := range ranges {
		rules = append(rules, forward.PortRule{Protocol: message.Protocol(r.Protocol), First: r.First, Last: r.Last})
	}
	return rules
}
