//go:build !linux && !darwin

package vhostdevice

import "os/exec"

func detach(*exec.Cmd) error { return ErrUnsupported }
