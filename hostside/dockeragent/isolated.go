package dockeragent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/system"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// ErrIsolated is wrapped by the error of Dial where the engine isolates its
// containers. What shows that has been told then.
var ErrIsolated = errors.New("this engine isolates its containers")

// sysbox is the runtime of Enhanced Container Isolation.
const sysbox = "sysbox-runc"

// isolation finds in what an engine tells of itself why it runs no container that shares the VM.
func isolation(info system.Info) (found []message.IsolationFinding) {
	add := func(kind, format string, args ...any) {
		found = append(found, message.IsolationFinding{Kind: kind, Detail: clean(fmt.Sprintf(format, args...))})
	}
	if info.DefaultRuntime == sysbox {
		add(message.IsolationDefaultRuntime, "the engine %s says so", info.Name)
	}
	for _, option := range info.SecurityOptions {
		// "name=seccomp,profile=default"; before Docker 17.03 it was the name alone.
		name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
		switch name {
		case "userns":
			add(message.IsolationEngineUserNamespace, "security option %q of the engine %s", option, info.Name)
		case "rootless":
			add(message.IsolationEngineRootless, "security option %q of the engine %s", option, info.Name)
		}
	}
	return found
}

// unprivileged is evidence that an engine does not start the container.
func unprivileged(err error) []message.IsolationFinding {
	return []message.IsolationFinding{{Kind: message.IsolationEngineUnprivileged, Detail: clean(err.Error())}}
}
