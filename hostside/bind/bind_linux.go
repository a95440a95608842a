package bind

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func setOptions(network string, fd uintptr) error {
	if network[:3] == "udp" {
		setBuffers(fd)
		// With CAP_NET_ADMIN, beyond net.core.rmem_max.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBufferBytes)
	}
	return nil
}

// probe is not called: no rule of Linux asks for it.
func probe(string, netip.AddrPort) error { return nil }

func permissionHint(_ string, at netip.AddrPort) string {
	first := 1024
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			first = n
		}
	}
	if int(at.Port()) >= first {
		return "permission: a security policy of this host forbids the port"
	}
	return fmt.Sprintf("permission: ports below %d need root or CAP_NET_BIND_SERVICE "+
		"(sysctl net.ipv4.ip_unprivileged_port_start)", first)
}
