package sandbox

import (
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"syscall"
)

func execIn(netNS string, args, env []string) error {
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	ns, err := openNetNS(netNS)
	if err != nil {
		return fmt.Errorf("open the sandbox's network namespace: %w", err)
	}
	defer ns.Close()
	// The thread that calls exec is the one that goes on as the new program. It is
	// not unlocked when that fails: nothing else may run in the namespace.
	runtime.LockOSThread()
	if err := enterNetNS(ns); err != nil {
		return err
	}
	err = syscall.Exec(program, args, env)
	return &fs.PathError{Op: "exec", Path: program, Err: err}
}
