//go:build !linux

package portowner

import (
	"context"
	"net/netip"
	"syscall"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

func find(ctx context.Context, ports []Port) ([]Owner, error) {
	owners := make([]Owner, len(ports))
	found, err := psnet.ConnectionsWithContext(ctx, "inet")
	if err != nil {
		return owners, err
	}
	x := make(index)
	for _, c := range found {
		addr, err := netip.ParseAddr(c.Laddr.IP)
		switch {
		case c.Laddr.IP == "*" && c.Family == syscall.AF_INET:
			addr = netip.IPv4Unspecified()
		case c.Laddr.IP == "*":
			addr = netip.IPv6Unspecified()
		case err != nil:
			continue
		}
		protocol := "tcp"
		if c.Type == syscall.SOCK_DGRAM {
			protocol = "udp"
		}
		x.add(socket{protocol: protocol, at: netip.AddrPortFrom(addr.Unmap(), uint16(c.Laddr.Port)),
			listening: c.Status == "LISTEN" || c.Raddr.Port == 0, holder: int(c.Pid)})
	}
	for i, p := range ports {
		s, ok := x.holder(p)
		if !ok || s.holder == 0 {
			// macOS lists only the user's own sockets.
			owners[i] = Owner{Hidden: true}
			continue
		}
		owners[i] = Owner{PID: s.holder}
		if pr, err := process.NewProcessWithContext(ctx, int32(s.holder)); err == nil {
			owners[i].Process, _ = pr.NameWithContext(ctx)
		}
	}
	return owners, nil
}
