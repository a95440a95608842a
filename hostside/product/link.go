package product

import (
	"path"
	"strings"
)

// OfLink is the VM that a link says it leads to.
func OfLink(url string) VM {
	scheme, rest, _ := strings.Cut(url, ":")
	name := strings.TrimPrefix(rest, "//")
	switch scheme {
	case "sandbox", "vhost-user":
		return VM{Product: ours}
	case "lima":
		return limaFolder(orDefault(name))
	case "colima":
		return named(Colima, orDefault(name))
	case "podman-machine":
		return named(Podman, name)
	case "wsl":
		return VM{Product: WSL}
	case "docker":
		return ofContext(name)
	case "hyperv":
		id, _, _ := strings.Cut(name, ":")
		return VM{ID: guidOf(id)}
	case "unix", "hybrid":
		// Below it are the sockets of Lima's VM.
		if dir := path.Dir(name); strings.Contains(dir, "/.lima/") || strings.Contains(dir, "/_lima/") || strings.Contains(dir, "/rancher-desktop/lima/") {
			return limaFolder(dir)
		}
	case "exec":
		return ofCommand(strings.Fields(rest))
	}
	return VM{}
}

func orDefault(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

// ofContext knows the contexts of the command docker that products make.
func ofContext(name string) VM {
	switch name {
	case "desktop-linux", "desktop-windows":
		return VM{Product: DockerDesktop}
	case "rancher-desktop":
		return VM{Product: RancherDesktop}
	case "orbstack":
		return VM{Product: OrbStack}
	case "colima":
		return named(Colima, "default")
	}
	if profile, ok := strings.CutPrefix(name, "colima-"); ok {
		return named(Colima, profile)
	}
	if instance, ok := strings.CutPrefix(name, "lima-"); ok {
		return limaFolder(instance)
	}
	return VM{}
}

// ofCommand knows the commands that lead into a product's VM. A flag that it does
// not know makes the VM unknown, not another one.
func ofCommand(words []string) VM {
	if len(words) == 0 {
		return VM{}
	}
	next := func(i int) string {
		if i < len(words) && !strings.HasPrefix(words[i], "-") {
			return strings.Trim(words[i], `'"`)
		}
		return ""
	}
	switch p := (Process{Path: strings.Trim(words[0], `'"`), Args: words}); p.program() {
	case "limactl":
		if instance := next(2); next(1) == "shell" && instance != "" {
			return limaFolder(instance)
		}
		return VM{} // Rancher Desktop and Colima are limactl's as well
	case "colima":
		profile := p.value("profile")
		if profile == "" {
			profile = p.value("p")
		}
		return named(Colima, orDefault(profile))
	case "podman":
		if next(1) == "machine" && next(2) == "ssh" {
			return named(Podman, next(3))
		}
	case "rdctl":
		return VM{Product: RancherDesktop}
	case "wsl":
		return VM{Product: WSL}
	case "orb", "orbctl":
		return VM{Product: OrbStack}
	}
	return VM{}
}
