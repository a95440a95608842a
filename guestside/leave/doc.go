// Package leave takes the agent out of the container that an engine has started
// it in, so that it sees the guest as if it had been installed there.
//
// Theory of operation. The container has the guest's network, processes and
// cgroups, but its own files. The agent needs the guest's: the sockets of engines
// are there, the cgroup2 hierarchy is mounted there where an engine with version 1
// cgroups gives its containers none, and names of containers are read from files
// where no engine answers.
//
// Whose files are they? The agent's parent is what the engine keeps a container
// with (containerd-shim, conmon), and binds of volumes are made in its mount
// namespace: /var/run/docker.sock of "docker run -v" is found there. That of process 1
// may be another, because some VMs (Docker Desktop's) run their engine itself in a
// container. So Container enters its parent's mount namespace and root directory, and
// executes this program anew, which keeps the process, its standard input and output,
// and so the engine's hold on it. The program's file is opened before, since no
// path leads to it afterwards.
//
// The alternative, binds of /run, /sys and more into the container, needs a list of all
// that the agent reads, and shows directories that an engine made anew under a
// bind as they were before.
//
// An engine that isolates its containers does not let them leave. That is no
// failure of the agent: it stays, and package isolation tells the host.
package leave
