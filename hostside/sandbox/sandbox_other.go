//go:build !linux

package sandbox

import "context"

type guest struct{}

func (*guest) close() error { return nil }

func start(context.Context, Config) (*Sandbox, error) { return nil, ErrNotSupported }

func execIn(string, []string, []string) error { return ErrNotSupported }
