package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
// without a daemon it does the same for the command line.
type controller struct {
	store     *settings.Store
	locations isolation.Locations
	keyFile   string
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
	c := &controller{store: store, locations: isolation.DefaultLocations(), keyFile: keyFile, log: log}
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
	s := daemonSettings(now, c.keyFile, runtime.GOOS)
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
	w := watch.New(c.paths(), func(err error) { c.log.WithError(err).Warn("settings are looked at once a second only") })
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

// SetEnabled implements control.Keeper. It is the last word, whatever a flag said
// at the start; a variable of the environment would be back at the next one.
func (c *controller) SetEnabled(_ context.Context, enabled bool) error {
	return c.setEnabled(strconv.FormatBool(enabled))
}

// setEnabled takes the value as text, which may be none.
func (c *controller) setEnabled(value string) error {
	write := func() error {
		if err := c.store.Set(enabledKey, value); err != nil {
			return err
		}
		c.store.DropFlag(enabledKey)
		c.stayOff("")
		return nil
	}
	if !strings.EqualFold(value, "false") {
		if err := c.mayEnable(value); err != nil {
			return err
		}
		return c.change(write)
	}
	v := c.store.Effective().Value(enabledKey)
	if v.Locked {
		return c.change(write) // which says so
	}
	keep := func() error {
		if err := outranked(v, value); err != nil {
			return err
		}
		return c.change(write)
	}
	if c.daemon == nil {
		return keep()
	}
	// Off comes first, and does not depend on a file.
	c.stayOff("vmbridge disable has turned it off")
	c.again()
	if err := keep(); err != nil {
		c.stayOff("vmbridge disable has turned it off for this run; it could not be kept: " + err.Error())
		c.again()
		return fmt.Errorf("host networking is off for this run of vmbridge, but that could not be kept: %w", err)
	}
	return nil
}

// stayOff keeps host networking off for a reason, until it is empty.
func (c *controller) stayOff(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = reason
}

// mayEnable tells what forbids the value, other than that it is locked.
func (c *controller) mayEnable(value string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.store.Effective()
	if now.PolicyError != nil {
		return fmt.Errorf("%w: %w", control.ErrRefused, unusablePolicy(now))
	}
	if err := outranked(now.Value(enabledKey), value); err != nil {
		return err
	}
	c.believe(c.locations.Read(), false)
	c.work()
	if err := c.verdict.Refusal(); err != nil {
		return fmt.Errorf("%w: %w", control.ErrRefused, err)
	}
	return nil
}

// outranked says that a variable holds another value, which would be back at the
// next start.
func outranked(v settings.Value, value string) error {
	if v.Origin != settings.OriginEnvironment || strings.EqualFold(v.Value, value) {
		return nil
	}
	return fmt.Errorf("%s=%s is in the environment of vmbridge and outranks this: start vmbridge without it", v.Place, v.Value)
}

// Set implements control.Keeper.
func (c *controller) Set(_ context.Context, key, value string) error {
	if key == enabledKey {
		return c.setEnabled(value)
	}
	return c.change(func() error { return c.store.Set(key, value) })
}

// Unset implements control.Keeper.
func (c *controller) Unset(_ context.Context, key string) error {
	return c.change(func() error { return c.store.Unset(key) })
}

// change makes a change of the store and applies it. mu is not held while the file
// is written: another program may keep its lock for seconds, which must not hold up
// what a policy or isolation closes.
func (c *controller) change(do func() error) error {
	if err := do(); err != nil {
		return kindOf(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply()
	return nil
}

// kindOf says what kind of error the store's is, for the exit status.
func kindOf(err error) error {
	var locked *settings.LockedError
	var wrong *settings.Error
	switch {
	case errors.As(err, &locked):
		return fmt.Errorf("%w: %w", control.ErrRefused, err)
	case errors.As(err, &wrong) && wrong.Path != "": // a mistake in the file, not in what was asked for
	case wrong != nil, errors.Is(err, settings.ErrUnknownKey):
		return fmt.Errorf("%w: %w", control.ErrInvalid, err)
	}
	return err
}

// Settings implements control.Keeper.
func (c *controller) Settings() control.Settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.store.Effective()
	s := control.Settings{Path: now.Path, Policy: now.PolicyPath, Problems: slices.Concat(problems(now), now.Warnings)}
	for _, v := range now.Values {
		s.Values = append(s.Values, control.Setting{
			Key: v.Key, Value: v.Value, Default: v.Default,
			Origin: string(v.Origin), Place: v.Place, Locked: v.Locked, Help: v.Help,
		})
	}
	return s
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
