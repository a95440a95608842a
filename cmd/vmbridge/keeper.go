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
	settings control.Settings // as they were when the command began
	offline  bool
}

// changer is what client and controller have in common.
type changer interface {
	SetEnabled(ctx context.Context, enabled bool) error
	Set(ctx context.Context, key, value string) error
	Unset(ctx context.Context, key string) error
}

func openKeeper(ctx context.Context) (*keeper, error) {
	home, err := control.DefaultHome()
	if err != nil {
		return nil, err
	}
	client := control.NewClient(home)
	now, err := client.Settings(ctx)
	if err == nil {
		return &keeper{changer: client, settings: now}, nil
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	if err := control.MakeHome(home); err != nil {
		return nil, err
	}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	c, err := newController(sources(settings.Path(home)), "", silent)
	if err != nil {
		return nil, err
	}
	return &keeper{changer: c, settings: c.Settings(), offline: true}, nil
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
	switch from := k.changer.(type) {
	case *control.Client:
		k.settings, err = from.Settings(ctx)
	case *controller:
		k.settings = from.Settings()
	}
	return err
}
