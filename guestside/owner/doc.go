// Package owner finds out whose a socket is: the process that holds it and the
// container that the process runs in.
//
// Theory of operation. Two things lead to a socket's owner. Its inode appears in
// /proc/PID/fd of the processes that hold it, which is exact but needs a walk
// through all descriptors; Holders does that once for any number of sockets,
// the likeliest processes first, which usually is enough. Its cgroup id, which the kernel tells with the socket, opens the
// cgroup's directory (ids of cgroups are file handles), whose path holds the
// container's id in the shapes that Docker, Podman, containerd and Kubernetes
// use. On hosts where the engine uses version 1 cgroups the id leads nowhere,
// and /proc/PID/cgroup is read instead.
//
// Several processes can hold one socket. A service manager or engine that made
// the socket and handed it over (systemd, or dockerd to docker-proxy) is not its
// owner as long as anybody else holds it; among the others the oldest is, which
// is the parent of a server that forks.
//
// The name and image of a container are asked of the engine (package engine), or
// read from its files, by a goroutine of its own: an
// engine that hangs delays no report. Updates tells that answers came.
package owner
