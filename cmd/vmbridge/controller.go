package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/daemon"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/settings/isolation"
	"github.com/vmbridge/vmbridge/settings/watch"
)

// The keys that the toggle and the isolation check are about.
const (
	enabledKey   = "host_networking.enabled"
	linksKey     = "links"
	isolationKey = "isolation.enhanced_container_isolation"
)

// controller joins settings, isolation check and daemon: whenever one of the
// files, or what a guest tells of its isolation, changes, it works out what the
// daemon is to do and has it done. It keeps the settings for the control socket;
// without a daemon it does the same for the command line. How it changes settings
// is in change.go.
type controller struct {
	store     *settings.Store
	locations isolation.Locations
	keyFile   string
	byDefault settings.Link  // where none is configured
	daemon    *daemon.Daemon // nil without one
	log       logrus.FieldLogger

	mu       sync.Mutex
	evidence isolation.Host
	verdict  isolation.Verdict
	off      string   // why host networking stays off, whatever the settings say
	warned   []string // what has been logged
}

var _ control.Keeper = (*controller)(nil)

// sources are the places that settings come from, without flags.
func sources(path string) settings.Sources {
	return settings.Sources{
		Path:           path,
		Policy:         settings.PolicyPath(),
		Environ:        os.Environ(),
		KnownVariables: []string{control.HomeVariable},
		CheckLink:      checkURL,
	}
}

func newController(from settings.Sources, keyFile string, log logrus.FieldLogger) (*controller, error) {
	store, err := settings.Open(from)
	if err != nil {
		return nil, err
	}
	c := &controller{store: store, locations: isolation.DefaultLocations(), keyFile: keyFile,
		byDefault: defaultLink(runtime.GOOS), log: log}
	c.evidence = c.locations.Read()
	return c, nil
}

// work is what the daemon is to do now. mu is held, or nothing runs yet.
func (c *controller) work() daemon.Settings {
	now := c.store.Effective()
	var guests []isolation.Guest
	if c.daemon != nil {
		guests = isolationGuests(c.daemon.Guests())
	}
	c.verdict = isolation.Judge(ownIsolation(now), c.evidence, guests)
	s := daemonSettings(now, c.keyFile, c.byDefault)
	s.Isolation = string(c.verdict.State)
	for _, f := range c.verdict.Findings {
		s.Evidence = append(s.Evidence, f.String())
	}
	s.Warnings = slices.Concat(problems(now), now.Warnings, c.verdict.Warnings)
	s.HostNetworking, s.Reason = c.toggle(now)
	return s
}

// toggle tells whether host networking is on, and if not, why.
func (c *controller) toggle(now settings.Effective) (state, reason string) {
	refusal := c.verdict.Refusal()
	switch {
	case now.PolicyError != nil:
		return control.Blocked, unusablePolicy(now).Error()
	case !now.HostNetworking.Enabled && now.Value(enabledKey).Locked:
		return control.Off, "the administrator's policy says so: " + now.PolicyPath
	case !now.HostNetworking.Enabled || c.off != "":
		return control.Off, c.off
	case refusal != nil:
		return control.Blocked, refusal.Error()
	}
	return control.On, ""
}

// problems are the mistakes in the files.
func problems(now settings.Effective) []string {
	var list []string
	if now.PolicyError != nil {
		list = append(list, unusablePolicy(now).Error())
	}
	if now.FileError != nil {
		list = append(list, now.FileError.Error()+" (the last good settings stay in force)")
	}
	return list
}

// unusablePolicy words why a policy fails closed.
func unusablePolicy(now settings.Effective) error {
	return fmt.Errorf("host networking stays off, because the administrator's policy cannot be used: %w", now.PolicyError)
}

// settleTime is how long evidence and settings that are gone must stay away before
// anything is opened, or cut, for it: a file that is being rewritten is absent, or
// cut short, for a moment.
const settleTime = 500 * time.Millisecond

// follow applies every change of the files until ctx ends.
func (c *controller) follow(ctx context.Context) {
	w := watch.New(c.paths(), func(err error) {
		c.log.WithError(err).Warn("some settings, or their directories, cannot be watched: they are looked at once a second")
	})
	defer w.Close()
	settled := false
	for {
		// At once, too: for what changed before the watch began.
		var settling <-chan time.Time
		if !c.look(settled) {
			settling = time.After(settleTime)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.Changed():
			settled = false
		case <-settling:
			settled = true
		}
	}
}

// look reads the files and applies what they say. It is false where it did not yet
// believe that evidence of isolation, a policy, or all settings, are gone; settled
// says that it may.
func (c *controller) look(settled bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, changed := c.store.Reload(settled)
	if changed {
		c.log.Info("the settings have changed")
	}
	believed := c.believe(c.locations.Read(), settled)
	c.apply()
	return believed && !now.Held
}

// believe takes over new evidence, but for the end of isolation.
func (c *controller) believe(now isolation.Host, settled bool) bool {
	isolated := func(h isolation.Host) bool {
		return slices.ContainsFunc(h.Findings, func(f isolation.Finding) bool { return f.State == isolation.On })
	}
	if !settled && isolated(c.evidence) && !isolated(now) {
		return false
	}
	c.evidence = now
	return true
}

// paths are the files that decide.
func (c *controller) paths() []string {
	return slices.Concat(c.store.Paths(), c.locations.Paths())
}

// again applies what holds now: something has changed that is in no file, such as
// what the guests tell.
func (c *controller) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply()
}

// apply has the daemon do what is due. mu is held.
func (c *controller) apply() {
	s := c.work()
	if c.daemon == nil {
		return
	}
	for _, w := range s.Warnings {
		if !slices.Contains(c.warned, w) {
			c.log.Warn(w)
		}
	}
	c.warned = s.Warnings
	c.daemon.Apply(s)
}

// ownIsolation is what our own settings say of isolation.
func ownIsolation(now settings.Effective) isolation.Setting {
	v := now.Value(isolationKey)
	s := isolation.Setting{On: now.Isolation.EnhancedContainerIsolation, Place: v.Place}
	if v.Locked {
		s.LockedBy = "the administrator's policy " + now.PolicyPath
	}
	return s
}

func isolationGuests(guests []daemon.Guest) []isolation.Guest {
	var list []isolation.Guest
	for _, g := range guests {
		to := isolation.Guest{Link: g.Link, Kernel: g.Kernel, Known: g.Told && g.Isolation != nil}
		switch {
		case g.Isolation != nil:
			to.Incomplete = g.Isolation.Incomplete
			for _, f := range g.Isolation.Findings {
				to.Findings = append(to.Findings, isolation.GuestFinding{Kind: isolation.Kind(f.Kind), Detail: f.Detail})
			}
		case g.Told:
			to.Known, to.Incomplete = true, []string{"its agent is of a version that does not look"}
		}
		list = append(list, to)
	}
	return list
}
