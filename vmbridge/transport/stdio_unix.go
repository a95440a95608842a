//go:build unix

package transport

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openStdio makes a connection of standard input and output. It duplicates the
// descriptors: os.Stdout would answer a broken pipe with SIGPIPE.
func openStdio() (*pipeConn, error) {
	r, err := pollable(unix.Stdin, "standard input")
	if err != nil {
		return nil, err
	}
	w, err := pollable(unix.Stdout, "standard output")
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	growPipe(r)
	growPipe(w)
	return newPipeConn(r, w, pipeAddr{"stdio", "stdio"}), nil
}

func pollable(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// A terminal would change the bytes, a file never blocks nor ends.
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFIFO && kind != unix.S_IFSOCK {
		return nil, errors.New(name + " is no pipe: stdio is for programs that start the agent, such as exec:ssh on the other side")
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, os.NewSyscallError("dup", err))
	}
	// NewFile hands non-blocking descriptors to the poller.
	if err := unix.SetNonblock(dup, true); err != nil {
		_ = unix.Close(dup)
		return nil, fmt.Errorf("%s: %w", name, os.NewSyscallError("set non-blocking", err))
	}
	return os.NewFile(uintptr(dup), name), nil
}
