// Package pseudofs opens the roots of kernel file systems (tracefs, cgroup2)
// wherever they are mounted, and mounts them privately where they are not.
//
// Theory of operation. A guest may be so small that nobody mounted tracefs, or
// run version 1 cgroups only. Mounting at some path would be visible to others,
// could collide, and would have to be undone by somebody when the agent dies.
// A detached mount (fsopen, fsmount) has none of this: no path leads to it and
// the kernel drops it with its last file descriptor.
package pseudofs
