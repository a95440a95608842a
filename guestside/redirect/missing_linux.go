package redirect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// explain adds to a failed attach the first feature that this kernel turns out
// to lack, or who is in the way.
func explain(err error) error {
	if missing := missingFeature(); missing != "" {
		return fmt.Errorf("the kernel has no %s: %w", missing, err)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("not allowed (it takes CAP_BPF and CAP_NET_ADMIN), or an exclusive program of somebody else is attached there: %w", err)
	}
	return err
}

// missingFeature names a feature that the kernel lacks for certain, "" when none.
func missingFeature() string {
	lacks := func(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }
	if lacks(features.HaveProgramType(ebpf.CGroupSockAddr)) {
		return "eBPF programs of type cgroup_sock_addr (CONFIG_CGROUP_BPF)"
	}
	for _, helper := range []struct {
		fn    asm.BuiltinFunc
		since string
	}{
		{asm.FnSkLookupTcp, "bpf_sk_lookup_tcp (Linux 5.0)"},
		{asm.FnSkLookupUdp, "bpf_sk_lookup_udp (Linux 5.0)"},
		{asm.FnSkRelease, "bpf_sk_release (Linux 5.0)"},
		{asm.FnGetSocketCookie, "bpf_get_socket_cookie (Linux 4.18)"},
		{asm.FnGetNetnsCookie, "bpf_get_netns_cookie (Linux 5.7)"},
		{asm.FnGetCurrentPidTgid, "bpf_get_current_pid_tgid (Linux 5.7)"},
	} {
		if lacks(features.HaveProgramHelper(ebpf.CGroupSockAddr, helper.fn)) {
			return "helper " + helper.since
		}
	}
	return ""
}
