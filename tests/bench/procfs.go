//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// residentBytes returns the resident set of a process.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", pid)
}

// cpuTime returns the processor time that a process has used, to the
// nanosecond: /proc/PID/stat counts in steps of 10 ms, which is what an idle
// process uses in minutes.
func cpuTime(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): the complement of the pid, CPUCLOCK_SCHED.
	clock := int32(^uint32(pid)<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(t.Nano()), nil
}

// setAffinity binds every thread of a process to cpus. Threads that start
// meanwhile inherit the set of their parent, so it goes round until a pass
// finds no thread that it has not seen.
func setAffinity(pid int, cpus *unix.CPUSet) error {
	seen := make(map[int]bool)
	for {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		before := len(seen)
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil || seen[tid] {
				continue
			}
			seen[tid] = true
			if err := unix.SchedSetaffinity(tid, cpus); err != nil && err != unix.ESRCH {
				return os.NewSyscallError("sched_setaffinity", err)
			}
		}
		if len(seen) == before {
			return nil
		}
	}
}

// listeningPorts counts the TCP ports from first up to, but not including,
// end that listen on IPv4 in this process's network namespace.
func listeningPorts(first, end int) (int, error) {
	const stateListen = "0A"
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		return 0, err
	}
	ports := make(map[int]struct{})
	for line := range bytes.Lines(table) {
		// "  12: 0100007F:1B59 00000000:0000 0A ..."
		_, rest, ok := bytes.Cut(line, []byte(": "))
		if !ok || len(rest) < 30 || string(rest[28:30]) != stateListen {
			continue
		}
		port, err := strconv.ParseUint(string(rest[9:13]), 16, 16)
		if err != nil {
			return 0, fmt.Errorf("/proc/self/net/tcp: %q", line)
		}
		if int(port) >= first && int(port) < end {
			ports[int(port)] = struct{}{}
		}
	}
	return len(ports), nil
}
