package dockeragent

import (
	"os"
	"strings"
)

// ownNetwork names the network namespace of this process as the agent's --not-in
// reads it, or is empty. An engine that runs on this machine and in it would have
// nothing to share: what listens there is here already, and what is for the host would
// come back to it.
func ownNetwork(host string) string {
	if !strings.HasPrefix(host, "unix://") {
		return "" // on another machine, or in a VM
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "/" + namespace
}
