package owner

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a process by number and by the kernel's name for it (comm).
type Process struct {
	PID  int
	Name string
}

// IsLauncher tells the processes that make sockets for others: whoever else
// holds such a socket owns it.
func (p Process) IsLauncher() bool {
	if p.PID == 1 {
		return true
	}
	switch p.Name {
	case "systemd", "init", "dockerd", "containerd", "inetd", "xinetd":
		return true
	}
	return false
}

// processStat is what /proc/PID/stat says of a process.
type processStat struct {
	name   string
	alive  bool   // not a zombie
	parent int    // process number
	start  uint64 // when it began, in clock ticks
}

// readStat describes a process, zero when there is none.
func readStat(pid int) processStat {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processStat{}
	}
	return parseStat(string(text))
}

func parseStat(text string) processStat {
	// The name, in parentheses, may contain anything.
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return processStat{}
	}
	const state, parent, start = 0, 1, 19 // of the fields after the name
	fields := strings.Fields(text[end+1:])
	if len(fields) <= start {
		return processStat{}
	}
	ppid, err1 := strconv.Atoi(fields[parent])
	began, err2 := strconv.ParseUint(fields[start], 10, 64)
	if err1 != nil || err2 != nil {
		return processStat{}
	}
	return processStat{
		name:   text[open+1 : end],
		alive:  fields[state] != "Z" && fields[state] != "X",
		parent: ppid,
		start:  began,
	}
}

// readProcess gives the name of a living process.
func readProcess(pid int) (Process, bool) {
	st := readStat(pid)
	return Process{PID: pid, Name: st.name}, st.alive
}

// holders is a search for the processes that hold sockets.
type holders struct {
	want  map[uint32]bool // inodes; false once a process of its own holds it
	found map[uint32]Process
	left  int // wanted inodes without a holder that is no launcher
	link  [64]byte
	seen  map[int]bool
	// claims counts the changes of found.
	claims int
}

func newHolders(want map[uint32]bool) *holders {
	return &holders{want: want, found: make(map[uint32]Process, len(want)), left: len(want), seen: map[int]bool{}}
}

// visit looks through the descriptors of one process.
func (h *holders) visit(pid int) {
	if h.seen[pid] {
		return
	}
	h.seen[pid] = true
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return // gone, or a process we may not look at
	}
	defer dir.Close()
	var self Process
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			inode, ok := h.socketInode(dir, name)
			if !ok {
				continue
			}
			if _, wanted := h.want[inode]; !wanted {
				continue
			}
			if self.PID == 0 {
				if self, ok = readProcess(pid); !ok {
					return
				}
			}
			h.claim(inode, self)
		}
		if err != nil || len(names) == 0 {
			return
		}
	}
}

// socketInode reads a link like "socket:[12345]".
func (h *holders) socketInode(dir *os.File, name string) (uint32, bool) {
	n, err := unix.Readlinkat(int(dir.Fd()), name, h.link[:])
	if err != nil {
		return 0, false
	}
	digits, ok := strings.CutPrefix(string(h.link[:n]), "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 32)
	return uint32(inode), err == nil
}

// claim makes p the owner of a socket unless somebody better holds it.
func (h *holders) claim(inode uint32, p Process) {
	old, held := h.found[inode]
	if held && old.PID == p.PID {
		return
	}
	if held && old.IsLauncher() == p.IsLauncher() && older(old.PID, p.PID) {
		return
	}
	if held && p.IsLauncher() && !old.IsLauncher() {
		return
	}
	h.found[inode] = p
	h.claims++
	if h.want[inode] && !p.IsLauncher() {
		h.want[inode] = false
		h.left--
	}
}

// older tells whether a began before b.
func older(a, b int) bool {
	first, second := readStat(a), readStat(b)
	return first.alive && (!second.alive || first.start <= second.start)
}

// visitEach looks through processes, the youngest numbers first because a new
// socket tends to be a new process's, until all is found or ctx ends.
func (h *holders) visitEach(ctx context.Context, pids []int) {
	slices.SortFunc(pids, func(a, b int) int { return b - a })
	for _, pid := range pids {
		if h.left == 0 || ctx.Err() != nil {
			return
		}
		h.visit(pid)
	}
}

// visitParents gives a socket that parent and children hold to the parent.
func (h *holders) visitParents(ctx context.Context) {
	const generations = 8
	next := map[int]bool{}
	for _, p := range h.found {
		next[p.PID] = true
	}
	for range generations {
		parents := map[int]bool{}
		for pid := range next {
			if ppid := readStat(pid).parent; ppid > 1 && !h.seen[ppid] && ctx.Err() == nil {
				before := h.claims
				if h.visit(ppid); h.claims > before {
					parents[ppid] = true
				}
			}
		}
		if next = parents; len(next) == 0 {
			return
		}
	}
}

// allProcesses lists every process.
func allProcesses() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
