package acceptance

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
)

// G6: somebody else's programs at the same hook of the same cgroup see every
// connection of the guest, whether they were there first or came later, and go on
// to when the agent is dead.
func TestG6OtherPrograms(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{})
	first := b.countConnects()
	b.startReach()
	second := b.countConnects()
	b.hostEchoes("127.0.0.1:7000")
	greet(t, here{b.guest}, socket.Spec{Network: "tcp", Address: "127.0.0.1:7001"}, "guest")
	const rounds = 20
	before := first() // the agent has asked the kernel who it is
	check := func(want uint64) {
		t.Helper()
		for i, n := range []uint64{first() - before, second()} {
			if n != want {
				t.Errorf("program %d saw %d connections, want %d", i, n, want)
			}
		}
	}
	for range rounds {
		must(t, try(b.guest, "tcp", "127.0.0.1:7000"))
		if name, err := who(b.guest, "tcp", "127.0.0.1:7001"); name != "guest" {
			t.Fatalf("the guest's own server: %q, %v", name, err)
		}
		must(t, closed(b.guest, "tcp", "127.0.0.1:7002"))
	}
	check(3 * rounds)
	b.agent.kill()
	must(t, closed(b.guest, "tcp", "127.0.0.1:7000"))
	check(3*rounds + 1)
}

// countConnects attaches a program to the root cgroup that counts the guest's
// calls of connect on IPv4.
func (b *bed) countConnects() (count func() uint64) {
	b.t.Helper()
	t := b.t
	root, err := cgroupbpf.OpenRoot()
	if err != nil {
		t.Skip(err)
	}
	defer root.Close()
	counter, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Skipf("no eBPF here: %v", err)
	}
	t.Cleanup(func() { counter.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "count_connects", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: "Apache-2.0",
		Instructions: cgroupbpf.Join(
			asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)},
			cgroupbpf.InNetns(b.netnsCookie()),
			asm.Instructions{
				asm.StoreImm(asm.RFP, -4, 0, asm.Word),
				asm.LoadMapPtr(asm.R1, counter.FD()),
				asm.Mov.Reg(asm.R2, asm.RFP),
				asm.Add.Imm(asm.R2, -4),
				asm.FnMapLookupElem.Call(),
				asm.JEq.Imm(asm.R0, 0, "out"),
				asm.Mov.Imm(asm.R1, 1),
				asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			},
			cgroupbpf.Allow()),
	})
	must(t, err)
	defer program.Close() // the link holds it
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: program, Attach: ebpf.AttachCGroupInet4Connect})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return func() (n uint64) {
		t.Helper()
		must(t, counter.Lookup(uint32(0), &n))
		return n
	}
}

// netnsCookie is the kernel's number for the guest's namespace.
func (b *bed) netnsCookie() (cookie uint64) {
	b.t.Helper()
	must(b.t, b.guest.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	}))
	return cookie
}
