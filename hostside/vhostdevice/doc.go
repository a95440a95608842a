// Package vhostdevice keeps a vhost-user-vsock device for a plain QEMU in a
// process of its own.
//
// Theory of operation. QEMU connects to a vhost-user device once, when it starts,
// and never again: a device that dies takes the guest's vsock with it until QEMU
// starts anew. So the device does not live in the daemon, which may be restarted
// or crash, but in a child process that outlives it.
//
// Serve is the child. It joins the device (package vhostvsock), which QEMU reaches
// at a path, to the hybrid vsock protocol (package hybrid) at the same path with
// .hybrid added, where the daemon and any other program of this user connect to
// the guest. It ends by itself when it is not used.
//
// Keeper is the daemon's part. It asks PATH.hybrid, and starts a child where
// nobody answers. Nobody has to remember anything: a daemon that comes back finds
// the child by asking. Two that ask at once start two children, of which the
// second finds the socket in use and ends (the order of the two sockets in Serve
// sees to it), and both daemons are content with the first. A Keeper never ends a
// child.
//
// The question is the line STATUS on PATH.hybrid, answered by one line of JSON and
// the end of the connection:
//
//	{"cid":3,"pid":4711,"version":"v1.0","machine":true,"driver":true}
//
// machine says that QEMU is connected, driver that a driver in the guest runs the
// device. Whatever else connects there says CONNECT PORT, as to Firecracker.
//
// A guest can make the device log, by resetting its driver for example, so what
// the device logs has a limit of lines, and the file a limit of bytes.
package vhostdevice
