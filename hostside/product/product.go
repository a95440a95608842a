package product

import "github.com/vmbridge/vmbridge/vmbridge/message"

// The products, as users know them.
const (
	Lima           = "Lima"
	Colima         = "Colima"
	RancherDesktop = "Rancher Desktop"
	WSL            = "WSL"
	DockerDesktop  = "Docker Desktop"
	Podman         = "Podman"
	GVProxy        = "gvproxy"
	CRC            = "OpenShift Local"
	OrbStack       = "OrbStack"

	// ours are the VMs that no product forwards for.
	ours = "vmbridge"
)

// VM is a virtual machine as far as it is known. The zero VM may be any.
type VM struct {
	Product string
	// Name is empty where it is unknown, and where the product has one VM only.
	Name string
	// ID is the GUID of a VM of Hyper-V.
	ID string
}

func (v VM) String() string {
	if v.Name == "" {
		return v.Product
	}
	return v.Product + ` "` + v.Name + `"`
}

// maxName bounds what is shown of a VM's name, in bytes. It comes from another
// process's arguments.
const maxName = 64

func named(product, name string) VM {
	return VM{Product: product, Name: message.Clean(name, maxName)}
}

// switches are what turns each product's forwarding off.
//
// Lima: https://lima-vm.io/docs/config/port/ and lima-vm/lima#4408, of November 2025:
// guestIPMustBeZero is needed since 2.0. Lima's override.yaml comes before what a
// product writes into lima.yaml. WSL: https://learn.microsoft.com/windows/wsl/wsl-config.
// Docker: https://docs.docker.com/engine/network/drivers/host/#docker-desktop; what -p
// publishes has no switch. OrbStack has none (orbstack/orbstack#1450), nor do those
// that are missing here.
var switches = map[string]string{
	Lima:           limaSwitch + ` in its lima.yaml`,
	Colima:         limaSwitch + ` in ~/.colima/_lima/_config/override.yaml`,
	RancherDesktop: limaSwitch + ` in lima/_config/override.yaml of its application data (not on Windows)`,
	WSL:            `localhostForwarding=false under [wsl2] in .wslconfig, then wsl --shutdown`,
	DockerDesktop:  `Settings, Resources, Network, Enable host networking; for published ports, to run without -p`,
}

const limaSwitch = `portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false, proto: any, ignore: true}]`

// Switch is the product's own setting that has it let go of ports, or empty where
// it has none.
func (v VM) Switch() string { return switches[v.Product] }

// inWSL are the products whose VM, on Windows, may be WSL's.
var inWSL = map[string]bool{DockerDesktop: true, RancherDesktop: true, Podman: true}

// relation of two VMs.
type relation int

const (
	other relation = iota
	maybe
	same
)

// compare tells whether a forwarder's VM is a link's.
func compare(link, forwarder VM) relation {
	switch {
	case link.Product == ours:
		return other
	case link.ID != "" && forwarder.ID != "":
		return pick(link.ID == forwarder.ID)
	case link.Product == "":
		return maybe
	case inWSL[link.Product] && forwarder.Product == WSL:
		return maybe
	case link.Product != forwarder.Product:
		return other
	case !severalVMs[link.Product]:
		return same
	case link.Name == "" || forwarder.Name == "":
		return maybe
	}
	return pick(link.Name == forwarder.Name)
}

// severalVMs are the products that run more than one.
var severalVMs = map[string]bool{Lima: true, Colima: true, Podman: true, GVProxy: true}

func pick(equal bool) relation {
	if equal {
		return same
	}
	return other
}
