package main

import (
	"context"
	"errors"
	"io"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/cmd/internal/program"
	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
)

// keeper is where commands find and change the settings: the running daemon, or
// without one the files.
type keeper struct {
	changer
	read     func(context.Context) (control.Settings, error)
	settings control.Settings // as they were read last
	offline  bool
}

// changer is what client and controller have in common.
type changer interface {
	SetEnabled(ctx context.Context, enabled bool) error
	Set(ctx context.Context, key, value string) error
	Unset(ctx context.Context, key string) error
}

// openKeeper finds the settings. Those who are about to change them get the home
// made where it does not exist.
func openKeeper(ctx context.Context, toChange bool) (*keeper, error) {
	home, err := control.DefaultHome()
	if err != nil {
		return nil, err
	}
	client := control.NewClient(home)
	now, err := client.Settings(ctx)
	if err == nil {
		return &keeper{changer: client, read: client.Settings, settings: now}, nil
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	if toChange {
		if err := control.MakeHome(home); err != nil {
			return nil, err
		}
	}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	c, err := newController(sources(settings.Path(home)), "", silent)
	if err != nil {
		return nil, err
	}
	read := func(context.Context) (control.Settings, error) { return c.Settings(), nil }
	return &keeper{changer: c, read: read, settings: c.Settings(), offline: true}, nil
}

// setting finds a key.
func (k *keeper) setting(key string) (control.Setting, error) {
	for _, s := range k.settings.Values {
		if s.Key == key {
			return s, nil
		}
	}
	return control.Setting{}, program.Usage(settings.CheckKey(key))
}

// reread brings settings up to date.
func (k *keeper) reread(ctx context.Context) (err error) {
	k.settings, err = k.read(ctx)
	return err
}
