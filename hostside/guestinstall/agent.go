package guestinstall

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vmbridge/vmbridge/hostside/agentbin"
)

// machines are the architectures as "uname -m" and as ELF files name them.
var machines = []struct {
	uname  string
	goarch string
	elf    elf.Machine
}{
	{"x86_64", "amd64", elf.EM_X86_64},
	{"aarch64", "arm64", elf.EM_AARCH64},
	{"arm64", "arm64", elf.EM_AARCH64},
}

// ErrMachine says that there is no agent for such a guest.
var ErrMachine = errors.New("there are agents for x86_64 and aarch64 only")

// Agent opens the agent for a guest whose "uname -m" says machine, and tells its
// size: the one that this program carries, else the one that lies beside it.
func Agent(machine string) (io.ReadCloser, int64, error) {
	for _, m := range machines {
		if m.uname != machine {
			continue
		}
		agent, size, err := agentbin.Open(m.goarch)
		if !errors.Is(err, agentbin.ErrNone) {
			return agent, size, err
		}
		if agent, size, ok := beside(m.elf); ok {
			return agent, size, nil
		}
		return nil, 0, err
	}
	return nil, 0, fmt.Errorf("%w: not for %q", ErrMachine, machine)
}

// beside opens the agent of a build tree.
func beside(machine elf.Machine) (io.ReadCloser, int64, bool) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, false
	}
	f, err := os.Open(filepath.Join(filepath.Dir(self), "vmbridge-guest"))
	if err != nil {
		return nil, 0, false
	}
	program, err := elf.NewFile(f) // reads it without moving its offset
	info, statErr := f.Stat()
	if err != nil || statErr != nil || program.Machine != machine {
		_ = f.Close()
		return nil, 0, false
	}
	return f, info.Size(), true
}
