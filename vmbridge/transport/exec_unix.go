//go:build unix

package transport

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// errBrokenPipe is the error of writing to a pipe that nobody reads.
const errBrokenPipe = unix.EPIPE

// shellCommand lets sh split the command, as everybody expects of quotes. The
// process group makes one target of sh and what it starts.
func shellCommand(command string) (*exec.Cmd, error) {
	cmd := exec.Command("sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func terminate(p *os.Process) error { return unix.Kill(-p.Pid, unix.SIGTERM) }

func kill(p *os.Process) error { return unix.Kill(-p.Pid, unix.SIGKILL) }
