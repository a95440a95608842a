package main

import (
	"context"
	"io"
	"runtime"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/daemon"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/hostside/reach"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// serve runs the daemon as planned, until ctx ends.
func serve(ctx context.Context, p plan, stdout io.Writer) error {
	config := daemon.Config{
		Home:    p.home,
		Enabled: p.enabled,
		SaveEnabled: func(enabled bool) error {
			return settings.SetEnabled(p.settingsPath, enabled)
		},
		Policy:  policy(p.settings, runtime.GOOS),
		Reach:   reachPolicy(p.settings.HostReach),
		Logger:  p.logger,
		Version: program.Version(version),
		Ready:   func() { writeBanner(stdout, p) },
	}
	for _, l := range p.links {
		config.Links = append(config.Links, daemon.Link{Name: l.Name, URL: l.URL, KeyFile: p.keyFile})
	}
	return daemon.Run(ctx, config)
}

// policy is the built-in one with what the settings say instead.
func policy(s settings.Settings, goos string) forward.Policy {
	policy := forward.DefaultPolicy(goos)
	policy.Exposure = forward.Exposure(s.Exposure)
	policy.LocalhostTwin = s.LocalhostTwin
	if s.Ports.Ignore != nil {
		policy.IgnorePorts = portRules(s.Ports.Ignore)
	}
	return policy
}

func reachPolicy(s settings.HostReach) reach.Policy {
	return reach.Policy{Enabled: s.Enabled, Allow: portRules(s.Allow), Deny: portRules(s.Deny)}
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
