package vhostdevice

import (
	"os/exec"
	"syscall"
)

// detach makes cmd a session of its own, as on Linux. Descriptors that whoever
// started us has left open stay open: there is no call for it here.
func detach(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return nil
}
