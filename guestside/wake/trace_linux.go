package wake

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/pseudofs"
)

const traceEvent = "events/sock/inet_sock_set_state/"

// traceFormat holds the offsets of the fields of sock:inet_sock_set_state. The
// kernel publishes them, and has moved them before (5.6 widened protocol).
type traceFormat struct {
	id                 uint64
	oldState, newState int16
	port, family       int16
	address            int16
}

var errTraceFormat = errors.New("tracepoint sock:inet_sock_set_state has an unknown format")

// findTrace reads id and format of the tracepoint.
func findTrace() (traceFormat, error) {
	root, err := pseudofs.OpenRoot("tracefs")
	if err != nil {
		return traceFormat{}, err
	}
	defer root.Close()
	text, err := pseudofs.ReadAt(root, traceEvent+"id")
	if err != nil {
		return traceFormat{}, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return traceFormat{}, fmt.Errorf("id of the tracepoint: %w", err)
	}
	text, err = pseudofs.ReadAt(root, traceEvent+"format")
	if err != nil {
		return traceFormat{}, err
	}
	f, err := parseTraceFormat(text)
	f.id = id
	return f, err
}

// parseTraceFormat finds the fields in the text of a "format" file.
func parseTraceFormat(text string) (traceFormat, error) {
	type field struct {
		name string
		size int
		to   *int16
	}
	var f traceFormat
	missing := []field{
		{"oldstate", 4, &f.oldState}, {"newstate", 4, &f.newState},
		{"sport", 2, &f.port}, {"family", 2, &f.family}, {"saddr_v6[16]", 16, &f.address},
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, offset, size, ok := parseTraceField(lines.Text())
		for i := 0; ok && i < len(missing); i++ {
			if m := missing[i]; m.name == name && m.size == size && offset%min(size, 4) == 0 {
				*m.to = int16(offset)
				missing = append(missing[:i], missing[i+1:]...)
				break
			}
		}
	}
	if len(missing) > 0 {
		return traceFormat{}, fmt.Errorf("%w: no usable field %s", errTraceFormat, missing[0].name)
	}
	return f, nil
}

// parseTraceField reads a line like
// "field:int oldstate;	offset:16;	size:4;	signed:1;".
func parseTraceField(line string) (name string, offset, size int, ok bool) {
	parts := strings.Split(strings.TrimSpace(line), ";")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "field:") {
		return "", 0, 0, false
	}
	name = parts[0][strings.LastIndexAny(parts[0], " :")+1:]
	offset, err1 := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(parts[1]), "offset:"))
	size, err2 := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(parts[2]), "size:"))
	ok = err1 == nil && err2 == nil && offset >= 0 && offset < 4096 && size > 0
	return name, offset, size, ok
}

// attachTrace runs prog at the tracepoint until the returned file is closed.
// A perf event is used by hand because the way through link.Tracepoint needs
// tracefs to be mounted at a path.
func attachTrace(id uint64, prog *ebpf.Program) (*os.File, error) {
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_TRACEPOINT,
		Size:        unix.PERF_ATTR_SIZE_VER1,
		Config:      id,
		Sample_type: unix.PERF_SAMPLE_RAW,
		Sample:      1,
		Wakeup:      1,
	}
	// CPU 0 stands for all: a program sees the tracepoint on every CPU.
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("perf_event_open", err)
	}
	f := os.NewFile(uintptr(fd), "perf event")
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
		f.Close()
		return nil, os.NewSyscallError("ioctl PERF_EVENT_IOC_SET_BPF", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		f.Close()
		return nil, os.NewSyscallError("ioctl PERF_EVENT_IOC_ENABLE", err)
	}
	return f, nil
}
