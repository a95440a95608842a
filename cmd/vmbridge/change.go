package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
)

// SetEnabled implements control.Keeper. It is the last word, whatever a flag said
// at the start; a variable of the environment would be back at the next one.
func (c *controller) SetEnabled(_ context.Context, enabled bool) error {
	return c.setEnabled(strconv.FormatBool(enabled))
}

// setEnabled takes the value as text, which may be none.
func (c *controller) setEnabled(value string) error {
	v := c.store.Effective().Value(enabledKey)
	if strings.EqualFold(value, "false") {
		return c.disable(v, value)
	}
	// Where the policy says on, isolation is what stands in the way.
	if !v.Locked || v.Value == "true" {
		if err := c.mayEnable(v, value); err != nil {
			return err
		}
	}
	return c.keepEnabled(v, value)
}

// disable turns off first: that does not depend on a file.
func (c *controller) disable(v settings.Value, value string) error {
	if v.Locked || c.daemon == nil {
		return c.keepEnabled(v, value)
	}
	c.stayOff("vmbridge disable has turned it off")
	if err := c.keepEnabled(v, value); err != nil {
		c.stayOff("vmbridge disable has turned it off for this run; it could not be kept: " + err.Error())
		return fmt.Errorf("host networking is off for this run of vmbridge, but that could not be kept: %w", err)
	}
	return nil
}

// keepEnabled writes the toggle, which is then what the file says.
func (c *controller) keepEnabled(v settings.Value, value string) error {
	if err := outranked(v, value); err != nil {
		return err
	}
	return c.change(func() error {
		if err := c.store.Set(enabledKey, value); err != nil {
			return err
		}
		c.store.DropFlag(enabledKey)
		c.stayOff("")
		return nil
	})
}

// stayOff keeps host networking off for a reason, until there is none.
func (c *controller) stayOff(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = reason
	c.apply()
}

// mayEnable tells what forbids the value, other than that it is locked.
func (c *controller) mayEnable(v settings.Value, value string) error {
	if err := outranked(v, value); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
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
