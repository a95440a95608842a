package message

import "slices"

// Isolation is what the guest shows of Enhanced Container Isolation: its
// containers are kept from the VM's own namespaces, which host networking gives
// them.
type Isolation struct {
	Findings []IsolationFinding `json:"findings,omitempty"`
	// Incomplete names what could not be looked at, each with the reason.
	Incomplete []string `json:"incomplete,omitempty"`
}

// IsolationFinding is one piece of evidence.
type IsolationFinding struct {
	Kind   string `json:"kind"` // one of the constants below
	Detail string `json:"detail"`
}

// Values of IsolationFinding.Kind.
const (
	// IsolationDefaultRuntime: an engine runs containers with sysbox-runc unless
	// told otherwise.
	IsolationDefaultRuntime = "default_runtime"
	// IsolationContainerRuntime: a running container was told to use sysbox-runc.
	IsolationContainerRuntime = "container_runtime"
	// IsolationSysboxProcess: sysbox-mgr or sysbox-fs runs.
	IsolationSysboxProcess = "sysbox_process"
	// IsolationUserNamespace: the agent's users are not the guest's.
	IsolationUserNamespace = "user_namespace"

	// No agent sends these: the daemon finds them at an engine that is to start one.

	// IsolationEngineUserNamespace: the engine gives containers a user namespace.
	IsolationEngineUserNamespace = "engine_user_namespace"
	// IsolationEngineRootless: the engine itself is in one.
	IsolationEngineRootless = "engine_rootless"
	// IsolationEngineUnprivileged: the engine forbids a container with privileges.
	IsolationEngineUnprivileged = "engine_unprivileged"
)

// MaxIsolationEntries bounds each list of Isolation: what is beyond is cut.
const MaxIsolationEntries = 16

func (i *Isolation) clean() {
	i.Findings = atMost(MaxIsolationEntries, i.Findings)
	for j := range i.Findings {
		f := &i.Findings[j]
		f.Kind, f.Detail = Clean(f.Kind, maxName), Clean(f.Detail, maxReason)
	}
	i.Incomplete = atMost(MaxIsolationEntries, i.Incomplete)
	for j := range i.Incomplete {
		i.Incomplete[j] = Clean(i.Incomplete[j], maxReason)
	}
}

// atMost cuts a list, and lets go of what is cut.
func atMost[T any](n int, list []T) []T {
	if len(list) <= n {
		return list
	}
	return slices.Clone(list[:n])
}
