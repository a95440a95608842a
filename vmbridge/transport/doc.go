// Package transport carries bytes between host and guest: it reads link URLs,
// dials them and listens on them.
//
// Theory of operation. Parse turns a URL into an Endpoint, which knows how it
// is dialled and listened on, how many connections a link over it may have and
// whether it needs the link key. Everything that happens inside a connection is
// package link's: a transport only has to deliver a stream of bytes in both
// directions. It need not tell FIN from RST nor close one direction alone,
// because most bridges between hosts and VMs cannot.
//
//	unix:///PATH              a socket of this user alone (mode 0600)
//	vsock://CID:PORT          AF_VSOCK, Linux only; vsock://:PORT listens
//	hybrid:///PATH?port=N     a guest's vsock port, asked for on a unix socket
//	hyperv://VMID:PORT        a Hyper-V socket of a VM, dialled on Windows
//	tcp://HOST:PORT           authenticated by the link key, not encrypted
//	exec:COMMAND ARGS         standard input and output of a command
//	stdio:                    the other end of exec, once
//	vhost-user:///PATH?cid=N  known here, made elsewhere; dialled as hybrid
//	sandbox:                  known here, made elsewhere
//	docker://CONTEXT          known here, made elsewhere: a container's stdio
//	lima://NAME, colima://PROFILE, podman-machine://NAME, wsl://DISTRO
//	                          known here, with the command that leads to a shell
//	                          in the VM; whoever sends the agent there dials them
//
// The connections are the system's own types where there are any, so that the
// link can write without waiting through RawWrite. Those of exec and stdio are
// two pipes with non-blocking descriptors, which know deadlines as well.
//
// A unix socket is bound, made 0600 and only then listened on, so that there is
// no moment at which somebody else could connect. A socket that nobody answers
// on is replaced, under a lock on its directory; a live one is ErrInUse.
//
// A hybrid socket is that of Firecracker and cloud-hypervisor: "CONNECT N" is
// answered with "OK M", or by closing when nobody listens on the guest's port N.
// The reply is read byte by byte, because the guest may speak at once; what is
// returned is the plain unix socket. Our own device for QEMU speaks the same, and
// says why it refuses ("ERR REASON").
//
// A Hyper-V socket is how Windows reaches the vsock of a Linux guest: the service of
// port N is the GUID that begins with N and goes on as Linux' hv_sock has it. To
// dial one needs no entry in the registry, only the right to: an administrator's,
// or a place in the group of Hyper-V administrators.
//
// The command of exec is given to sh, so that quotes mean what they mean
// everywhere; on Windows the system's own rules split it and there is no shell.
// Close ends its input, and a second later asks the process group to end, and
// then kills it; it returns when the process has been reaped. Read and Write
// explain a command that failed with an ExitError.
//
// An AF_VSOCK listener accepts the host alone unless told otherwise: programs
// in the guest can reach it through the loopback.
//
// Buffers. 2026-11, two cores of an EPYC shared with other work, Linux 6.18,
// one direction between two processes in Gbit/s, medians of three:
//
//	unix socket, send buffer   208 KiB   512 KiB   1 MiB   4 MiB
//	writes of 64 KiB                23        27      26      32
//	writes of 128 KiB               33        33      39      40
//	writes of 256 KiB               30        38      39      40
//
//	pipe, size                  64 KiB   256 KiB   512 KiB   1 MiB
//	writes of 128 KiB              8.1        22        23      24
//
// So unix sockets ask for 1 MiB (systems grant 416 KiB by default; the receive
// buffer does not matter for them) and pipes for 256 KiB. TCP sizes its buffers
// by itself and has TCP_NODELAY from package net.
//
// Of gvisor-tap-vsock, pkg/transport.Listen would fit by its form, and is not
// used: its unix sockets have the mode that the umask leaves and fail on a stale
// file, its vsock listener is mdlayher/vsock's as here, without a filter, and on
// macOS it removes whatever is at the path. What would be left of it is a call
// of net.Listen.
package transport
