package redirect

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// identity is how the kernel's programs see the agent: the cookie of its network
// namespace, and its process as numbered in the initial pid namespace.
type identity struct {
	netns uint64
	tgid  uint32
}

// Layout of the value that the program of learn writes.
const (
	identityNetns = 0
	identityTGID  = 8
	identitySize  = 16
)

// learn finds out who we are. The agent cannot ask for all of it (in a pid
// namespace it knows another number of itself, and the cookie of a namespace can
// be asked for only since Linux 5.14), but a program can: one that waits for a
// call on one socket of ours.
func learn(root *os.File) (identity, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return identity{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return identity{}, os.NewSyscallError("getsockopt SO_COOKIE", err)
	}
	found, err := ebpf.NewMap(&ebpf.MapSpec{Name: "vmb_identity", Type: ebpf.Array,
		KeySize: 4, ValueSize: identitySize, MaxEntries: 1})
	if err != nil {
		return identity{}, fmt.Errorf("create a map: %w", err)
	}
	defer found.Close()
	l, err := cgroupbpf.Attach(root, ebpf.ProgramSpec{Name: "vmb_identity", Type: ebpf.CGroupSockAddr,
		AttachType: ebpf.AttachCGroupInet4Connect, Instructions: learnProgram(cookie, found)})
	if err != nil {
		return identity{}, err
	}
	defer l.Close()
	// Whether it connects does not matter: the program runs before.
	_ = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9})
	var value struct {
		Netns uint64
		TGID  uint32
		_     uint32
	}
	if err := found.Lookup(uint32(0), &value); err != nil {
		return identity{}, fmt.Errorf("read a map: %w", err)
	}
	if value.Netns == 0 || value.TGID == 0 {
		return identity{}, fmt.Errorf("the program did not see a connect of our own (netns %d, process %d)", value.Netns, value.TGID)
	}
	return identity{netns: value.Netns, tgid: value.TGID}, nil
}

// learnProgram is the body for connect4 that writes down who uses the socket
// with this cookie.
func learnProgram(cookie uint64, found *ebpf.Map) asm.Instructions {
	const key, value = -8, -8 - identitySize
	return cgroupbpf.Join(
		begin(),
		asm.Instructions{
			asm.FnGetSocketCookie.Call(),
			asm.LoadImm(asm.R1, int64(cookie), asm.DWord),
			asm.JNE.Reg(asm.R0, asm.R1, "out"),
			asm.StoreImm(asm.RFP, key, 0, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnGetNetnsCookie.Call(),
			asm.StoreMem(asm.RFP, value+identityNetns, asm.R0, asm.DWord),
			asm.FnGetCurrentPidTgid.Call(),
			asm.RSh.Imm(asm.R0, 32),
			asm.StoreMem(asm.RFP, value+identityTGID, asm.R0, asm.DWord),
			asm.LoadMapPtr(asm.R1, found.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, key),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, value),
			asm.Mov.Imm(asm.R4, 0), // BPF_ANY
			asm.FnMapUpdateElem.Call(),
		},
		cgroupbpf.Allow(),
	)
}
