package cgroupbpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/pseudofs"
)

// License of the programs: they use no helper that asks for the GPL.
const License = "Apache-2.0"

// initCgroupNamespace is the inode of the initial cgroup namespace
// (PROC_CGROUP_INIT_INO in the kernel's include/linux/proc_ns.h).
const initCgroupNamespace = 0xEFFFFFFB

// OpenRoot opens the root of the cgroup2 hierarchy.
func OpenRoot() (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/cgroup", &st); err == nil && st.Ino != initCgroupNamespace {
		return nil, errors.New("root cgroup: the agent has a cgroup namespace of its own and sees only its part of the tree")
	}
	root, err := pseudofs.OpenRoot("cgroup2")
	if err != nil {
		return nil, fmt.Errorf("root cgroup: %w", err)
	}
	return root, nil
}

// Attach loads a program and attaches it to the cgroup for as long as the link
// is open. The license is set here.
func Attach(cgroup *os.File, spec ebpf.ProgramSpec) (*link.RawLink, error) {
	spec.License = License
	prog, err := ebpf.NewProgram(&spec)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", spec.Name, err)
	}
	defer prog.Close() // the link holds it
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: prog, Attach: spec.AttachType})
	if err != nil {
		return nil, fmt.Errorf("attach %s to the root cgroup: %w", spec.Name, err)
	}
	return l, nil
}

// Join makes one program of its parts.
func Join(parts ...asm.Instructions) asm.Instructions {
	var all asm.Instructions
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Allow ends a program: the system call goes ahead.
func Allow() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}
}

// InNetns leaves for "out" when the socket of the context in R6 is not in the
// network namespace with this cookie.
func InNetns(cookie uint64) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R1, int64(cookie), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "out"),
	}
}
