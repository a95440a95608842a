package owner

import "strings"

// containerID finds the innermost container in a path of cgroups:
//
//	/docker/ID                                        Docker, cgroupfs driver
//	/system.slice/docker-ID.scope                     Docker, systemd driver
//	/kubepods/burstable/podUID/ID                     Kubernetes, cgroupfs
//	/kubepods.slice/.../cri-containerd-ID.scope       Kubernetes, systemd (also crio-ID)
//	/machine.slice/libpod-ID.scope/container          Podman (also nerdctl-ID)
//	/default/ID                                       containerd's own tools
//
// An ID is 64 hexadecimal digits. Podman's monitor (libpod-conmon-ID) is outside
// of its container.
func containerID(path string) (string, bool) {
	for path != "" {
		i := strings.LastIndexByte(path, '/')
		component := strings.TrimSuffix(path[i+1:], ".scope")
		path = path[:max(i, 0)]
		prefix := ""
		if dash := strings.LastIndexByte(component, '-'); dash >= 0 {
			prefix, component = component[:dash], component[dash+1:]
		}
		if isContainerID(component) && !strings.HasSuffix(prefix, "conmon") {
			return component, true
		}
	}
	return "", false
}

func isContainerID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// cgroupFileContainer finds the container in the text of /proc/PID/cgroup,
// whose lines are "hierarchy:controllers:path".
func cgroupFileContainer(text string) (string, bool) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if id, ok := containerID(parts[2]); ok {
			return id, true
		}
	}
	return "", false
}
