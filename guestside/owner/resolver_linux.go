package owner

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Config says where to ask for the names of containers.
type Config struct {
	// Sockets are API sockets of Docker or Podman to ask besides the usual
	// ones and those of the engines that run.
	Sockets []string
}

// Resolver finds the owners of sockets. All methods but Run, Updates
// and Foreign belong to one goroutine.
type Resolver struct {
	cgroups *cgroups
	names   *names
	netns   uint64 // inode of the network namespace to look at
	pass    map[int]*processInfo
}

// processInfo is what was found out about a process in this pass.
type processInfo struct {
	Process
	alive      bool
	inNetns    bool
	container  string
	hasCgroups bool // container was looked for
}

// New makes a Resolver for the network namespace of the calling thread.
func New(cfg Config) (*Resolver, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", &os.PathError{Op: "stat", Path: "/proc/thread-self/ns/net", Err: err})
	}
	return &Resolver{cgroups: newCgroups(), names: newNames(cfg.Sockets), netns: st.Ino, pass: map[int]*processInfo{}}, nil
}

// Close releases what the Resolver holds open.
func (r *Resolver) Close() { r.cgroups.close() }

// Run asks the engines for the names of containers until ctx ends.
func (r *Resolver) Run(ctx context.Context) { r.names.run(ctx) }

// Updates is sent to when more names of containers are known than before.
func (r *Resolver) Updates() <-chan struct{} { return r.names.updates }

// Begin starts a pass: what is known of processes by their number is forgotten,
// because numbers are used again.
func (r *Resolver) Begin() { clear(r.pass) }

func (r *Resolver) info(pid int) *processInfo {
	if p, ok := r.pass[pid]; ok {
		return p
	}
	p := &processInfo{}
	p.Process, p.alive = readProcess(pid)
	if p.alive {
		var st unix.Stat_t
		p.inNetns = unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == r.netns
	}
	r.pass[pid] = p
	return p
}

// Process names a living process; false when it is gone.
func (r *Resolver) Process(pid int) (Process, bool) {
	p := r.info(pid)
	return p.Process, p.alive
}

// InNetns tells whether a living process is in the Resolver's network
// namespace.
func (r *Resolver) InNetns(pid int) bool { return r.info(pid).inNetns }

// Foreign tells whether a thread is known to be in another network namespace;
// one that is gone is not. It may be called from any goroutine.
func (r *Resolver) Foreign(thread int) bool {
	var st unix.Stat_t
	return unix.Stat(fmt.Sprintf("/proc/%d/ns/net", thread), &st) == nil && st.Ino != r.netns
}

// rootCgroup is the id of the root cgroup: its sockets may be anybody's.
const rootCgroup = 1

// Holders finds the processes that hold sockets, given by inode with the id of
// their cgroup. The calling process is always looked at. Others are until ctx
// ends or all is found, the likeliest first: those of the sockets' own cgroups,
// those of the network namespace, and all the rest. Sockets that nobody was found
// to hold are missing in the result.
func (r *Resolver) Holders(ctx context.Context, sockets map[uint32]uint64) map[uint32]Process {
	want := make(map[uint32]bool, len(sockets))
	groups := map[uint64]bool{}
	for inode, group := range sockets {
		want[inode] = true
		groups[group] = group != rootCgroup
	}
	h := newHolders(want)
	h.visit(os.Getpid())
	for group, telling := range groups {
		if telling {
			h.visitEach(ctx, r.cgroups.processes(group))
		}
	}
	if h.left > 0 {
		var near, far []int
		for _, pid := range allProcesses() {
			if r.Foreign(pid) {
				far = append(far, pid)
			} else {
				near = append(near, pid)
			}
		}
		h.visitEach(ctx, near)
		h.visitEach(ctx, far)
	}
	h.visitParents(ctx)
	return h.found
}

// Container tells the container of a socket by the id of its cgroup, or else by
// the process that holds it (0 when unknown). The name and the image may follow
// later, see Updates.
func (r *Resolver) Container(cgroupID uint64, pid int) Container {
	id := r.cgroups.container(cgroupID)
	if id == "" && pid > 0 {
		p := r.info(pid)
		if !p.hasCgroups {
			p.hasCgroups = true
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
			if err == nil {
				p.container, _ = cgroupFileContainer(string(text))
			}
		}
		id = p.container
	}
	if id == "" {
		return Container{}
	}
	return r.names.get(id)
}
