package isolation

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

const (
	// maxGap is how many process numbers are looked at one by one. Beyond it,
	// listing what lives is cheaper: most of what began has ended.
	maxGap = 512
	// All processes are looked at again from time to time, because one can take
	// its name long after it began: as often as may be with one part in scanShare
	// of the time, between these bounds.
	scanShare     = 20000
	scanEvery     = 10 * time.Second
	scanAtLeastIn = 2 * time.Minute
	// maxKnown bounds the processes that are remembered: those of sysbox and, so that
	// nobody can hide them behind others, those of engines.
	maxKnown = 64
)

// processes looks for processes by name, in the pid namespace of the agent.
type processes struct {
	sysbox names
	proc   *os.File  // the directory
	last   int       // the last number given out, as of the latest look
	young  []int     // processes that were new then: a name follows with exec
	scan   time.Time // when to look at all of them
	known  map[int]process
	err    error // of the latest look
	buf    [1024]byte
}

func newProcesses(sysbox names) *processes {
	p := &processes{sysbox: sysbox, known: map[int]process{}}
	p.proc, p.err = os.Open("/proc")
	return p
}

func (p *processes) close() {
	if p.proc != nil {
		_ = p.proc.Close() // nothing was written
	}
}

// look notes what has begun and ended. It tells whether that changes anything,
// and whether an engine has begun.
func (p *processes) look(now time.Time) (changed, engine bool) {
	if p.proc == nil {
		return false, false // the report has the reason
	}
	for pid, old := range p.known {
		if start, alive := p.start(pid); !alive || start != old.start {
			delete(p.known, pid)
			changed = true
		}
	}
	began, before, all := time.Now(), p.last, now.After(p.scan)
	pids, err := p.candidates(all)
	changed = changed || (err == nil) != (p.err == nil)
	p.err, p.young = err, nil
	for _, pid := range pids {
		found, alive := p.identify(pid)
		if old, ok := p.known[pid]; ok {
			if found.name == old.name {
				continue
			}
			delete(p.known, pid) // it has become another program
			changed = true
		}
		switch {
		case found.name != "" && p.hasRoom(found):
			p.known[pid] = found
			changed, engine = true, engine || isEngine(found.name)
		case alive && between(before, pid, p.last):
			p.young = append(p.young, pid)
		}
	}
	if all {
		p.scan = now.Add(min(max(scanEvery, scanShare*time.Since(began)), scanAtLeastIn))
	}
	return changed, engine
}

// hasRoom tells whether one more process of its sort is remembered.
func (p *processes) hasRoom(one process) bool {
	n := 0
	for _, known := range p.known {
		if p.sysbox.has(known.name) == p.sysbox.has(one.name) {
			n++
		}
	}
	return n < maxKnown
}

// candidates lists the processes to look at, or all of them.
func (p *processes) candidates(all bool) ([]int, error) {
	before := p.last
	if err := p.readLast(); err != nil {
		return nil, err
	}
	if all {
		return p.list()
	}
	pids := p.young
	switch gap := p.last - before; {
	case 0 <= gap && gap <= maxGap:
		for pid := before + 1; pid <= p.last; pid++ {
			pids = append(pids, pid)
		}
		return pids, nil
	default:
		living, err := p.list()
		for _, pid := range living {
			if between(before, pid, p.last) {
				pids = append(pids, pid)
			}
		}
		return pids, err
	}
}

// between tells whether a number was given out after that of before, up to that
// of last. Numbers begin again when they are used up.
func between(before, pid, last int) bool {
	if before <= last {
		return before < pid && pid <= last
	}
	return before < pid || pid <= last
}

// readLast reads the last process number that the kernel has given out.
func (p *processes) readLast() error {
	text, err := p.read("loadavg")
	if err != nil {
		return fmt.Errorf("find new processes: %w", err)
	}
	// "0.00 0.00 0.00 2/90 23814"
	fields := strings.Fields(string(text))
	last := -1
	if len(fields) == 5 {
		last, err = strconv.Atoi(fields[4])
	}
	if last < 0 || err != nil {
		return fmt.Errorf("find new processes: /proc/loadavg is %q", text)
	}
	p.last = last
	return nil
}

func (p *processes) list() ([]int, error) {
	_, err := p.proc.Seek(0, io.SeekStart)
	var names []string
	if err == nil {
		names, err = p.proc.Readdirnames(-1)
	}
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// read reads the beginning of a file below /proc. The result is valid until the
// next read.
func (p *processes) read(name string) ([]byte, error) {
	fd, err := unix.Openat(int(p.proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
	}
	n, err := unix.Read(fd, p.buf[:])
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return nil, &os.PathError{Op: "read", Path: "/proc/" + name, Err: err}
	}
	return p.buf[:n], nil
}

// hasEngine tells whether a process of an engine runs.
func (p *processes) hasEngine() bool {
	for _, one := range p.known {
		if isEngine(one.name) {
			return true
		}
	}
	return false
}

// sockets lists where the engines that run were told to listen.
func (p *processes) sockets() []string {
	var all []string
	for _, pid := range slices.Sorted(maps.Keys(p.known)) {
		all = append(all, p.known[pid].sockets...)
	}
	return all
}

// evidence is that sysbox runs.
func (p *processes) evidence() evidence {
	var e evidence
	if p.err != nil {
		e.missed("processes", p.err)
	}
	for _, pid := range slices.Sorted(maps.Keys(p.known)) {
		if one := p.known[pid]; p.sysbox.has(one.name) {
			e.found(message.IsolationSysboxProcess, "%s, process %d", one.name, pid)
		}
	}
	return e
}
