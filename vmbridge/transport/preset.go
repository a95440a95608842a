package transport

import (
	"fmt"
	"regexp"
	"strings"
)

// Way is how a product leads into its VM.
type Way struct {
	// Check is a command that fails when there is no such VM, or empty where that
	// of Shell does.
	Check string
	// Shell is the command whose standard input and output are those of a shell of
	// root in the VM.
	Shell string
	// List is the command that shows a user which VMs there are, and which run.
	List string
}

// preset is what a product's programs are called with. NAME stands for the VM's
// name; a command that has it is left out, or is unnamed's, where there is none.
type preset struct {
	placeholder    string // in messages
	check          string
	named, unnamed string
	list           string
}

// presets are taken from the products' documentation and sources, of 2026-11:
//
//	limactl shell INSTANCE COMMAND   lima-vm.io/docs/reference/limactl_shell; without
//	                                 --workdir it tries the host's directory and complains.
//	                                 The command lima takes the instance "default"
//	colima ssh -- COMMAND            cmd/ssh.go; --profile is of every command (cmd/root)
//	podman machine ssh NAME COMMAND  podman-machine-ssh(1); a NAME that is no machine's is
//	                                 run as a command in the default one (cmd/podman/machine/ssh.go),
//	                                 so it is checked by podman-machine-inspect(1) before
//	wsl.exe -d DISTRO -u USER -- COMMAND   learn.microsoft.com/windows/wsl/basic-commands
//
// All but WSL log in as an ordinary user who may use sudo without a password.
var presets = map[Scheme]preset{
	Lima: {
		placeholder: "NAME",
		named:       "limactl shell --workdir / NAME sudo sh",
		unnamed:     "limactl shell --workdir / default sudo sh",
		list:        "limactl list",
	},
	Colima: {
		placeholder: "PROFILE",
		named:       "colima ssh --profile NAME -- sudo sh",
		unnamed:     "colima ssh -- sudo sh",
		list:        "colima list",
	},
	PodmanMachine: {
		placeholder: "NAME",
		check:       "podman machine inspect NAME",
		named:       "podman machine ssh NAME sudo sh",
		unnamed:     "podman machine ssh sudo sh",
		list:        "podman machine list",
	},
	WSL: {
		placeholder: "DISTRO",
		named:       "wsl.exe -d NAME -u root -- sh",
		unnamed:     "wsl.exe -u root -- sh",
		list:        "wsl.exe -l -v",
	},
}

func (e Endpoint) isPreset() bool {
	_, ok := presets[e.scheme]
	return ok
}

// Way is how the product of a lima, colima, podman-machine or wsl endpoint leads
// into its VM; ok is false elsewhere.
func (e Endpoint) Way() (way Way, ok bool) {
	p, ok := presets[e.scheme]
	if !ok {
		return Way{}, false
	}
	if e.host == "" {
		return Way{Shell: p.unnamed, List: p.list}, true
	}
	fill := func(command string) string { return strings.Replace(command, "NAME", e.host, 1) }
	return Way{Check: fill(p.check), Shell: fill(p.named), List: p.list}, true
}

// presetName is what may be in a name. Nothing of it means anything to a shell, and
// no product takes it for an option.
var presetName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// maxPresetName bounds a name, in bytes.
const maxPresetName = 255

// parsePreset takes the name of a VM, which may be missing, from what follows the
// scheme.
func parsePreset(scheme Scheme, rest string) (name, problem string) {
	placeholder := presets[scheme].placeholder
	form := fmt.Sprintf("write %s://%s, or %[1]s:// for the default one", scheme, placeholder)
	name, ok := strings.CutPrefix(rest, "//")
	switch {
	case !ok:
		return "", form
	case name == "":
		return "", ""
	case len(name) > maxPresetName || !presetName.MatchString(name):
		return "", fmt.Sprintf("%q is no name: it may have letters, digits, dots, dashes and underscores; %s", name, form)
	}
	return name, ""
}
