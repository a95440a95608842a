package redirect

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterCalls puts this process under a filter as container engines have it: no
// eBPF, no tracing and no change of namespaces, the rest allowed.
func filterCalls() error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K

		allow = 0x7fff0000 // SECCOMP_RET_ALLOW
		deny  = 0x00050000 // SECCOMP_RET_ERRNO

		setModeFilter = 1 // SECCOMP_SET_MODE_FILTER
		allThreads    = 1 // SECCOMP_FILTER_FLAG_TSYNC
	)
	filter := []unix.SockFilter{{Code: load, K: 0}} // seccomp_data.nr
	for _, nr := range []uint32{unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_PTRACE} {
		filter = append(filter,
			unix.SockFilter{Code: equals, Jf: 1, K: nr},
			unix.SockFilter{Code: answer, K: deny | uint32(unix.EPERM)})
	}
	filter = append(filter, unix.SockFilter{Code: answer, K: allow})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, allThreads, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
