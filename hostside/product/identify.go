package product

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Process is what decides whose a process is.
type Process struct {
	Name string // of the process
	Path string // of its program; may be empty
	Args []string
}

// program is the file's name: in lower case, without .exe.
func (p Process) program() string {
	name := strings.TrimSuffix(p.Path, " (deleted)") // upgraded while it runs, on Linux
	if name == "" {
		name = p.Name
	}
	return strings.TrimSuffix(strings.ToLower(path.Base(slashes(name))), ".exe")
}

// slashes makes one kind of path of the two. On Unix a name may hold a backslash,
// but those of these products do not.
func slashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

// has tells whether the arguments hold a word, the program's own name aside.
func (p Process) has(word string) bool {
	return len(p.Args) > 0 && slices.Contains(p.Args[1:], word)
}

// value is that of a flag, in any of the forms -name VALUE, --name VALUE and
// --name=VALUE.
func (p Process) value(flag string) string {
	for i, a := range p.Args {
		name, value, joined := strings.Cut(a, "=")
		switch {
		case i == 0 || strings.TrimLeft(name, "-") != flag || !strings.HasPrefix(name, "-"):
		case joined:
			return value
		case i+1 < len(p.Args):
			return p.Args[i+1]
		}
	}
	return ""
}

// identify tells whose forwarder a process is: the VM, and whether it is one. The
// parent counts for ssh alone; the zero Process is none.
func identify(p, parent Process) (VM, bool) {
	switch p.program() {
	case "limactl":
		return limaHostAgent(p)
	case "ssh":
		// limactl starts it, and it stays as the master of later forwards.
		if vm, ok := sshMaster(p); ok {
			return vm, true
		}
		if parent.program() == "limactl" {
			return limaHostAgent(parent)
		}
	case "host-switch":
		return VM{Product: RancherDesktop}, true
	case "wslrelay":
		// RelayMode::PortRelay, see src/windows/wslrelay/main.cpp of microsoft/WSL;
		// the other modes are consoles and kernel debugging.
		return VM{Product: WSL, ID: guidOf(p.value("vm-id"))}, p.value("mode") == "1"
	case "wslhost": // until WSL 1.1.6
		return VM{Product: WSL, ID: guidOf(p.value("vm-id"))}, true
	case "com.docker.backend", "com.docker.vpnkit", "com.docker.vpnkit-bridge":
		return VM{Product: DockerDesktop}, true
	case "vpnkit", "vpnkit-bridge":
		// Others use vpnkit as well.
		return VM{Product: DockerDesktop}, strings.Contains(slashes(p.Path), "/Docker.app/") || strings.Contains(slashes(p.Path), "/Docker/")
	case "gvproxy":
		return gvproxy(p), true
	case "crc":
		return VM{Product: CRC}, p.has("daemon")
	case "orbstack helper", "macvmgr": // the latter until 0.6
		return VM{Product: OrbStack}, p.has("vmgr")
	}
	return VM{}, false
}

// limaHostAgent reads limactl hostagent --pidfile DIR/ha.pid --socket DIR/ha.sock ...
// INSTANCE, where the folder is the VM's.
func limaHostAgent(p Process) (VM, bool) {
	if !p.has("hostagent") {
		return VM{}, false
	}
	for _, flag := range []string{"pidfile", "socket"} {
		if file := slashes(p.value(flag)); strings.Contains(file, "/") {
			return limaFolder(path.Dir(file)), true
		}
	}
	return limaFolder(p.Args[len(p.Args)-1]), true
}

// muxTitle is what the master of an ssh connection calls itself.
var muxTitle = regexp.MustCompile(`^ssh: (.+)/ssh\.sock \[mux\]$`)

func sshMaster(p Process) (VM, bool) {
	m := muxTitle.FindStringSubmatch(strings.TrimRight(strings.Join(p.Args, " "), " \x00"))
	if m == nil || path.Dir(m[1]) == "." {
		return VM{}, false
	}
	return limaFolder(m[1]), true
}

// limaFolder takes the VM from its folder below Lima's: that of Colima and of
// Rancher Desktop is their own.
func limaFolder(dir string) VM {
	name := path.Base(slashes(dir))
	profile, colima := strings.CutPrefix(name, "colima-")
	switch {
	case strings.Contains(slashes(dir), "/rancher-desktop/lima/"):
		return VM{Product: RancherDesktop}
	case name == "colima":
		return named(Colima, "default")
	case colima:
		return named(Colima, profile)
	}
	return named(Lima, name)
}

// gvproxy belongs to whoever has started it; Podman names its machine in the
// sockets.
func gvproxy(p Process) VM {
	if !strings.Contains(strings.Join(p.Args, " "), "podman") {
		for _, flag := range []string{"listen-vfkit", "listen-qemu", "listen"} {
			if socket := p.value(flag); socket != "" {
				return named(GVProxy, path.Base(slashes(socket)))
			}
		}
		return VM{Product: GVProxy}
	}
	file := slashes(p.value("forward-sock"))
	if machine, ok := strings.CutSuffix(path.Base(file), "-api.sock"); ok {
		return named(Podman, machine)
	}
	if strings.HasPrefix(file, "npipe:") {
		return named(Podman, path.Base(file))
	}
	return VM{Product: Podman}
}

// guidOf is a GUID in the form of link URLs.
func guidOf(s string) string { return strings.ToLower(strings.Trim(s, "{}")) }
