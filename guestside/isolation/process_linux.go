package isolation

import (
	"bytes"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/engine"
)

// process is one that was looked for.
type process struct {
	name    string
	start   uint64   // when it began, in clock ticks: numbers are used again
	sockets []string // of a dockerd
}

// names are those of the processes of sysbox.
type names struct{ manager, files string }

// sysboxNames are what it calls them.
func sysboxNames() names { return names{manager: "sysbox-mgr", files: "sysbox-fs"} }

func (n names) has(name string) bool { return name == n.manager || name == n.files }

func isEngine(name string) bool { return name == "dockerd" || name == "podman" }

// wanted gives the name back if it is one that is looked for, else "".
func (p *processes) wanted(name string) string {
	if p.sysbox.has(name) || isEngine(name) {
		return name
	}
	return ""
}

// identify looks at a process. It has no name when it is none that is looked
// for (yet), or a thread: the process that it is part of is looked at by itself.
func (p *processes) identify(pid int) (found process, alive bool) {
	dir := strconv.Itoa(pid)
	text, err := p.read(dir + "/comm")
	if err != nil {
		return process{}, false
	}
	name := p.wanted(string(bytes.TrimSuffix(text, []byte("\n"))))
	if name == "" {
		// A process may call itself what it likes, so ask for its file too.
		n, err := unix.Readlinkat(int(p.proc.Fd()), dir+"/exe", p.buf[:])
		if err != nil {
			return process{}, true // the kernel's own, for one
		}
		file := strings.TrimSuffix(string(p.buf[:n]), " (deleted)")
		if name = p.wanted(path.Base(file)); name == "" {
			return process{}, true
		}
	}
	if !p.leads(pid) {
		return process{}, false
	}
	start, alive := p.start(pid)
	if !alive {
		return process{}, false
	}
	found = process{name: name, start: start}
	if name == "dockerd" {
		daemon, ok := engine.ReadDaemon(pid)
		if !ok {
			return process{}, true // its exec is under way
		}
		found.sockets = daemon.Sockets
	}
	return found, true
}

// leads tells a process from the other threads, which have numbers, too.
func (p *processes) leads(pid int) bool {
	text, err := p.read(strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strings.TrimSpace(id) == strconv.Itoa(pid)
		}
	}
	return false
}

// start tells when a process began; false when it has ended.
func (p *processes) start(pid int) (uint64, bool) {
	text, err := p.read(strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	return parseStart(string(text))
}

// parseStart reads the text of /proc/PID/stat. A zombie has ended.
func parseStart(text string) (uint64, bool) {
	// The name, in parentheses, may contain anything.
	const state, start = 0, 19 // of the fields after the name
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return 0, false
	}
	began, err := strconv.ParseUint(fields[start], 10, 64)
	return began, err == nil
}
