// Package product tells which product's forwarder holds a port of this machine,
// and whether it does so for the virtual machine that a link leads to.
//
// Theory of operation. Lima, WSL, Docker Desktop and the like forward the ports of
// their VM by themselves. Where a link of ours leads into that same VM, a port that
// they hold is no conflict: it is carried, and the product has a switch of its own
// that lets go of it. Package portowner names the process; identify, a pure
// function, makes a product and a VM out of its program and its arguments, and for
// ssh, which Lima may leave the forwarding to, out of its title or its parent.
// OfLink does the same for a link, out of what its URL says. Judge compares the two.
//
// What a link says of itself:
//
//	lima://NAME colima://PROFILE     product and VM
//	podman-machine://NAME            product and VM; without a name any of Podman's
//	wsl://DISTRO                     WSL's only VM, which all distributions share
//	docker://CONTEXT                 the product that makes a context of this name
//	hyperv://VMID:PORT               the VM's ID, which WSL's relay is started with
//	sandbox: vhost-user:             a VM of ours: no product's
//	exec: unix: hybrid:              where limactl, colima, podman machine or wsl.exe
//	                                 is the command, or the path is in Lima's folder of
//	                                 the VM: product and VM; else nothing
//	vsock: tcp: docker://            nothing
//
// Another VM than the link's is a conflict. Where a link says nothing, or less than
// is needed, the forwarder is taken for its VM's only if there is nothing else that
// it could be: this machine runs the forwarders of no other VM, no other link leads
// to that VM, and no other link is as silent. The reason says that this was a
// conclusion. Else the port is a conflict, and the reason says what the link would
// have to say. WSL's relay also serves the products that live in WSL's VM.
//
// A program is known by its file's name and by how it was started, because names
// alone lie: limactl also makes tunnels, and wslrelay debugging ports. An ssh that a
// user has started with -L is a conflict like any other program. Multipass is not
// here: it gives its VMs addresses and forwards nothing. Nor is the svchost of
// Windows' portproxy, which does what the user has told it to.
//
// The processes of one batch are each looked at once; all of them are listed only
// for a link that does not say enough.
package product
