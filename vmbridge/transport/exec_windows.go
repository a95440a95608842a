package transport

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/windows"
)

// errBrokenPipe is the error of writing to a pipe that nobody reads.
const errBrokenPipe = windows.ERROR_NO_DATA

// shellCommand splits the command by the rules of Windows. There is no cmd.exe
// in between: killing it would leave the command behind.
func shellCommand(command string) (*exec.Cmd, error) {
	args, err := windows.DecomposeCommandLine(command)
	if err != nil {
		return nil, fmt.Errorf("split the command: %w", err)
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("%w: no command", ErrInvalid)
	}
	cmd := exec.Command(args[0], args[1:]...)
	// Else what wsl.exe itself says is UTF-16. Other programs do not know it.
	cmd.Env = append(os.Environ(), "WSL_UTF8=1")
	return cmd, nil
}

// terminate kills: a Windows process without a console cannot be asked to end.
func terminate(p *os.Process) error { return p.Kill() }

func kill(p *os.Process) error { return p.Kill() }
