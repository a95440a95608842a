//go:build linux

package main

import (
	"net"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// pastaMissing says why pasta cannot run, or "".
func pastaMissing() string {
	if _, err := exec.LookPath("pasta"); err != nil {
		return "no pasta here (Debian package passt)"
	}
	return ""
}

// startPasta starts pasta in the host namespace with the ports of the server:
// its options for TCP and UDP in the direction that is measured, and in the
// other. Loopback connections it splices between two sockets.
func startPasta(b *bed, tcp, udp, otherTCP, otherUDP string) error {
	if err := b.host.do(addUplink); err != nil {
		return err
	}
	cmd := exec.Command("pasta",
		"--foreground", "--stderr",
		"--runas", "0", // it would become nobody, who may not enter the namespace
		"--netns", "/proc/self/fd/3", // it has given up the right to look into other processes
		"--config-net",
		tcp, joinPorts(tcpPorts[:]), udp, joinPorts(udpPorts[:]),
		otherTCP, "none", otherUDP, "none")
	cmd.ExtraFiles = append(cmd.ExtraFiles, b.guest.file)
	return b.startPart(roleHost, "pasta", cmd)
}

// addUplink gives the calling thread's namespace an interface with a default
// route: pasta does not start without one to copy. Nothing is sent over it.
func addUplink() error {
	const name, peer = "uplink", "uplink-peer"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		return err
	}
	for _, n := range []string{peer, name} {
		link, err := netlink.LinkByName(n)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr("192.0.2.1/24") // TEST-NET-1
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, address); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(192, 0, 2, 2)})
}

func joinPorts(ports []int) string {
	var s []string
	for _, p := range ports {
		s = append(s, strconv.Itoa(p))
	}
	return strings.Join(s, ",")
}
