package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// Config says where calls to localhost go. A family of which both addresses are
// the zero Addr is not carried.
type Config struct {
	Host4, Guest4 netip.Addr // the host address, and our own on the way to it
	Host6, Guest6 netip.Addr // the same for IPv6
}

// Redirect is the set of programs that are attached.
type Redirect struct {
	closing  sync.Once
	closeErr error
	links    []*link.RawLink // in the order of attaching
}

// plan is what the programs are made from.
type plan struct {
	self           identity
	carry4, carry6 bool
	host4, guest4  int32
	host6, guest6  words
}

// newPlan checks the addresses.
func newPlan(cfg Config) (*plan, error) {
	p := &plan{carry4: cfg.Host4.IsValid() || cfg.Guest4.IsValid(), carry6: cfg.Host6.IsValid() || cfg.Guest6.IsValid()}
	if !p.carry4 && !p.carry6 {
		return nil, errors.New("no host address of either family")
	}
	if p.carry4 {
		if !cfg.Host4.Is4() || !cfg.Guest4.Is4() {
			return nil, fmt.Errorf("not a pair of IPv4 addresses: host %v, guest %v", cfg.Host4, cfg.Guest4)
		}
		p.host4, p.guest4 = word4(cfg.Host4), word4(cfg.Guest4)
	}
	if p.carry6 {
		if !native6(cfg.Host6) || !native6(cfg.Guest6) {
			return nil, fmt.Errorf("not a pair of IPv6 addresses: host %v, guest %v", cfg.Host6, cfg.Guest6)
		}
		p.host6, p.guest6 = words6(cfg.Host6), words6(cfg.Guest6)
	}
	return p, nil
}

func native6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// Attach loads and attaches the programs for the network namespace of the
// calling thread. The error names the feature of the kernel that is missing.
func Attach(cfg Config) (*Redirect, error) {
	r, err := attach(cfg)
	if err != nil {
		return nil, fmt.Errorf("redirect localhost: %w", err)
	}
	return r, nil
}

func attach(cfg Config) (*Redirect, error) {
	p, err := newPlan(cfg)
	if err != nil {
		return nil, err
	}
	// Linux 5.11 and later do not count eBPF's memory. Where they do, what is
	// loaded next fails with a better word.
	_ = rlimit.RemoveMemlock()
	root, err := cgroupbpf.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if p.self, err = learn(root); err != nil {
		return nil, fmt.Errorf("learn who we are: %w", explain(err))
	}
	return attachAll(root, p.hooks())
}

// attachAll attaches all of the programs, or none.
func attachAll(cgroup *os.File, hooks []hook) (*Redirect, error) {
	r := &Redirect{}
	for _, h := range hooks {
		l, err := cgroupbpf.Attach(cgroup, ebpf.ProgramSpec{Name: "vmb_" + h.name, Type: ebpf.CGroupSockAddr,
			AttachType: h.at, Instructions: h.body})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hook %s (Linux %s): %w", h.name, h.since, explain(err)), r.Close())
		}
		r.links = append(r.links, l)
	}
	return r, nil
}

// Close detaches the programs. It is idempotent.
func (r *Redirect) Close() error {
	r.closing.Do(func() {
		for i := len(r.links) - 1; i >= 0; i-- {
			r.closeErr = errors.Join(r.closeErr, r.links[i].Close())
		}
	})
	return r.closeErr
}

// hook is one program and its place.
type hook struct {
	name  string // as bpftool has it
	since string // version of Linux
	at    ebpf.AttachType
	body  asm.Instructions
}

// hooks gives the programs in the order of attaching: nothing is redirected
// before its way back is there. IPv6 sockets carry IPv4 too.
func (p *plan) hooks() []hook {
	var all []hook
	if p.carry4 {
		all = append(all,
			hook{"getpeername4", "5.8", ebpf.AttachCgroupInet4GetPeername, p.peer4()},
			hook{"getsockname4", "5.8", ebpf.AttachCgroupInet4GetSockname, p.local4()},
			hook{"recvmsg4", "5.2", ebpf.AttachCGroupUDP4Recvmsg, p.peer4()})
	}
	all = append(all,
		hook{"getpeername6", "5.8", ebpf.AttachCgroupInet6GetPeername, p.peer6()},
		hook{"getsockname6", "5.8", ebpf.AttachCgroupInet6GetSockname, p.local6()},
		hook{"recvmsg6", "5.2", ebpf.AttachCGroupUDP6Recvmsg, p.peer6()},
		hook{"connect6", "4.17", ebpf.AttachCGroupInet6Connect, p.connect6()})
	if p.carry6 {
		all = append(all, hook{"sendmsg6", "4.18", ebpf.AttachCGroupUDP6Sendmsg, p.sendmsg6()})
	}
	if p.carry4 {
		all = append(all,
			hook{"connect4", "4.17", ebpf.AttachCGroupInet4Connect, p.connect4()},
			hook{"sendmsg4", "4.18", ebpf.AttachCGroupUDP4Sendmsg, p.sendmsg4()})
	}
	return all
}
