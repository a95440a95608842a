package vhostdevice

import (
	"math"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// detach makes cmd a session of its own, so that what is typed on the daemon's
// terminal, or its end, is none of the child's business. Its standard input and
// output are /dev/null, as package exec has it, and further descriptors, which
// whoever started us may have left open, end here: Linux 5.11 and later.
func detach(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	return nil
}
