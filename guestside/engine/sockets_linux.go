package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usual is where engines listen unless they are told otherwise, the likeliest
// first, whether they do or not.
func Usual() []string {
	return []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
}

// Users is where the engines of the users that are logged in would listen.
func Users() []string {
	const top = "/run/user"
	users, err := os.ReadDir(top)
	if err != nil {
		return nil // no users have engines
	}
	var sockets []string
	for _, user := range users {
		dir := filepath.Join(top, user.Name())
		sockets = append(sockets, filepath.Join(dir, "podman/podman.sock"), filepath.Join(dir, "docker.sock"))
	}
	return sockets
}

// Daemon is what a dockerd was started with.
type Daemon struct {
	Sockets []string // its API sockets
	Roots   []string // its data directories
}

// ReadDaemon reads the flags of the dockerd with a process number; false when
// it is gone, or has just begun.
func ReadDaemon(pid int) (Daemon, bool) {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(cmdline) == 0 {
		return Daemon{}, false
	}
	return parseFlags(strings.Split(string(cmdline), "\x00")), true
}

// Daemons reads the flags of every dockerd that runs, in one.
func Daemons() Daemon {
	var all Daemon
	proc, err := os.Open("/proc")
	if err != nil {
		return all
	}
	defer proc.Close()
	entries, err := proc.Readdirnames(-1)
	if err != nil {
		return all
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || string(name) != "dockerd\n" {
			continue
		}
		one, _ := ReadDaemon(pid)
		all.Sockets, all.Roots = append(all.Sockets, one.Sockets...), append(all.Roots, one.Roots...)
	}
	return all
}

// parseFlags picks -H/--host and --data-root/-g out of dockerd's arguments.
func parseFlags(args []string) Daemon {
	var d Daemon
	for i, arg := range args {
		flag, value, ok := strings.Cut(arg, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		switch flag {
		case "-H", "--host":
			if path, ok := strings.CutPrefix(value, "unix://"); ok {
				d.Sockets = append(d.Sockets, path)
			}
		case "-g", "--data-root":
			if filepath.IsAbs(value) {
				d.Roots = append(d.Roots, value)
			}
		}
	}
	return d
}
