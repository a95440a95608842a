package portowner

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// States of sock_diag; an unconnected UDP socket is in CLOSE.
const (
	stateClose  = 7
	stateListen = 10
)

func find(ctx context.Context, ports []Port) ([]Owner, error) {
	sockets, err := dump(ports)
	if err != nil {
		return make([]Owner, len(ports)), err
	}
	held := make([]socket, len(ports))
	wanted := make(map[int]Owner)
	for i, p := range ports {
		if s, ok := sockets.holder(p); ok {
			held[i] = s
			wanted[s.holder] = Owner{}
		}
	}
	delete(wanted, 0) // no inode: the kernel's own, or no longer anybody's
	err = processes(ctx, wanted)
	users := make(map[int]string)
	owners := make([]Owner, len(ports))
	for i, s := range held {
		if !s.at.IsValid() {
			continue
		}
		owners[i] = wanted[s.holder]
		if owners[i].PID == 0 {
			if _, known := users[s.uid]; !known {
				users[s.uid] = lookUpUser(s.uid)
			}
			// A scan that was cut short proves nothing about what is visible.
			owners[i] = Owner{User: users[s.uid], Hidden: err == nil}
		}
	}
	return owners, err
}

// dump lists the sockets of the protocols that are asked for.
func dump(ports []Port) (index, error) {
	x := make(index)
	asked := make(map[string]bool)
	for _, p := range ports {
		asked[p.Protocol] = true
	}
	for protocol := range asked {
		list, alive := netlink.SocketDiagTCP, uint8(stateListen)
		if protocol == "udp" {
			list, alive = netlink.SocketDiagUDP, stateClose
		}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			found, err := list(family)
			// An interrupted dump is incomplete, which costs at most a name.
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				if family == unix.AF_INET6 {
					continue // a kernel without IPv6
				}
				return nil, err
			}
			for _, s := range found {
				if s.State != alive && s.INode == 0 {
					continue // TIME_WAIT: nobody's
				}
				addr, _ := netip.AddrFromSlice(s.ID.Source)
				x.add(socket{protocol: protocol, at: netip.AddrPortFrom(addr.Unmap(), s.ID.SourcePort),
					listening: s.State == alive, holder: int(s.INode), uid: int(s.UID)})
			}
		}
	}
	return x, nil
}

// processes fills in who has the wanted socket inodes open. The processes of our
// own network namespace come first: that is where a port's holder nearly always
// is, and containers may have many descriptors.
func processes(ctx context.Context, wanted map[int]Owner) error {
	missing := len(wanted)
	if missing == 0 {
		return nil
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return err
	}
	home, _ := os.Readlink("/proc/thread-self/ns/net")
	var near, far []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(filepath.Join("/proc", name, "ns/net")); err == nil && ns == home {
			near = append(near, pid)
		} else {
			far = append(far, pid)
		}
	}
	// By pid, because the first process that has a socket is the one that opened
	// it, and its children have inherited it.
	slices.Sort(near)
	slices.Sort(far)
	for _, pid := range append(near, far...) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, inode := range socketsOf(pid) {
			if o, ok := wanted[inode]; ok && o.PID == 0 {
				wanted[inode] = Owner{PID: pid, Process: comm(pid)}
				missing--
			}
		}
		if missing == 0 {
			return nil
		}
	}
	return nil
}

// socketsOf lists the inodes of a process's sockets: none of one that has ended
// or is another user's.
func socketsOf(pid int) []int {
	path := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var inodes []int
	for _, name := range names {
		target, err := os.Readlink(filepath.Join(path, name))
		if err != nil {
			continue
		}
		text, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(text, "]")); err == nil {
			inodes = append(inodes, n)
		}
	}
	return inodes
}

func comm(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func lookUpUser(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return userName(uid, "")
	}
	return userName(uid, u.Username)
}
