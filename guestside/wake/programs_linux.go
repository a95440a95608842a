package wake

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
	"github.com/vmbridge/vmbridge/guestside/sockdiag"
)

// What the programs store. Both maps have values of the same layout, which is
// that of the Go struct call.
const (
	keySize   = 20 // of the listen calls: address, port and family
	valueSize = 24

	offTime      = 0
	offPID       = 8
	offPort      = 12
	offConfirmed = 16

	eventSize = 16
)

// Stack layout, as offsets from the frame pointer.
const (
	stackKey   = -24 // keySize bytes, or an 8-byte cookie
	stackValue = stackKey - valueSize
	stackEvent = stackValue - eventSize
)

// Numbers of the kernel, as the operands of instructions.
const (
	ipprotoUDP = int32(sockdiag.UDP)
	stListen   = int32(sockdiag.StateListen)
	stClose    = int32(sockdiag.StateClose)
)

// Field offsets of the contexts of cgroup programs (include/uapi/linux/bpf.h).
const (
	sockAddrUserPort = 24 // bpf_sock_addr.user_port, network byte order
	sockAddrProtocol = 36 // bpf_sock_addr.protocol
	sockProtocol     = 12 // bpf_sock.protocol
)

// storeCall fills the value on the stack with the calling process and the time.
// The port is set by the caller before.
func storeCall() asm.Instructions {
	return asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, stackValue+offTime, asm.R0, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, stackValue+offPID, asm.R0, asm.Word),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackValue+offConfirmed, asm.R1, asm.DWord),
	}
}

// updateMap writes the key and the value on the stack to m.
func updateMap(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackValue),
		asm.Mov.Imm(asm.R4, 0), // BPF_ANY
		asm.FnMapUpdateElem.Call(),
	}
}

// lookupCookie leaves in R0 the value of m for the cookie on the stack and
// jumps to "out" when there is none.
func lookupCookie(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

// emit sends the event on the stack. A full ring already has a reader that is
// about to look, so a failure needs no care.
func emit(ring *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackEvent),
		asm.Mov.Imm(asm.R3, eventSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
	}
}

// tcpProgram is the body for sock:inet_sock_set_state: it remembers who called
// listen, by address and port, and wakes.
func tcpProgram(f traceFormat, calls, ring *ebpf.Map) asm.Instructions {
	head := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, f.oldState, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, f.newState, asm.Word),
		asm.JEq.Imm(asm.R2, stListen, "listen"),
		// Not every departure from LISTEN: a connection that is accepted begins
		// as a copy of its listener, which the tracepoint shows as LISTEN to
		// SYN_RECV.
		asm.JNE.Imm(asm.R1, stListen, "out"),
		asm.JNE.Imm(asm.R2, stClose, "out"),
		asm.Mov.Imm(asm.R7, int32(TCPClose)),
		asm.Ja.Label("emit"),

		asm.Mov.Imm(asm.R7, int32(TCPListen)).WithSymbol("listen"),
	}
	for i := int16(0); i < 16; i += 4 {
		head = append(head,
			asm.LoadMem(asm.R1, asm.R6, f.address+i, asm.Word),
			asm.StoreMem(asm.RFP, stackKey+i, asm.R1, asm.Word))
	}
	head = append(head,
		asm.LoadMem(asm.R1, asm.R6, f.port, asm.Half),
		asm.StoreMem(asm.RFP, stackKey+16, asm.R1, asm.Half),
		asm.StoreMem(asm.RFP, stackValue+offPort, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, f.family, asm.Half),
		asm.StoreMem(asm.RFP, stackKey+18, asm.R1, asm.Half),
	)
	return cgroupbpf.Join(head, storeCall(), updateMap(calls),
		asm.Instructions{
			asm.StoreMem(asm.RFP, stackEvent, asm.R7, asm.Word).WithSymbol("emit"),
			asm.LoadMem(asm.R1, asm.R6, f.port, asm.Half),
			asm.StoreMem(asm.RFP, stackEvent+4, asm.R1, asm.Word),
			asm.FnGetCurrentPidTgid.Call(),
			asm.Mov.Reg32(asm.R0, asm.R0), // the thread is the lower half
			asm.StoreMem(asm.RFP, stackEvent+8, asm.R0, asm.DWord),
		},
		emit(ring),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		})
}

// onlyNetns leaves for "out" when the socket of the context in R6 is in another
// network namespace; own is 0 when the kernel has no namespace cookies.
func onlyNetns(own uint64) asm.Instructions {
	if own == 0 {
		return nil
	}
	return cgroupbpf.InNetns(own)
}

// loadCookie stores the cookie of the socket of the context in R6 as the key.
func loadCookie() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, stackKey, asm.R0, asm.DWord),
	}
}

// bindProgram is the body for bind4 and bind6: it remembers the port that a UDP
// socket asks for. Port 0 ("any") is how clients bind, and costs nothing more
// unless anyPort is set.
func bindProgram(netns uint64, anyPort bool, calls *ebpf.Map) asm.Instructions {
	head := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, sockAddrProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, ipprotoUDP, "out"),
		asm.LoadMem(asm.R7, asm.R6, sockAddrUserPort, asm.Word),
		asm.HostTo(asm.BE, asm.R7, asm.Half),
	}
	if !anyPort {
		head = append(head, asm.JEq.Imm(asm.R7, 0, "out"))
	}
	return cgroupbpf.Join(head, onlyNetns(netns),
		asm.Instructions{asm.StoreMem(asm.RFP, stackValue+offPort, asm.R7, asm.Word)},
		storeCall(), loadCookie(), updateMap(calls), cgroupbpf.Allow())
}

// postBindProgram is the body for post_bind4 and post_bind6: it confirms what
// bindProgram remembered, and wakes.
func postBindProgram(calls, ring *ebpf.Map) asm.Instructions {
	return cgroupbpf.Join(udpSocket(), loadCookie(), lookupCookie(calls),
		asm.Instructions{asm.StoreImm(asm.R0, offConfirmed, 1, asm.Word)},
		cookieEvent(UDPBind), emit(ring), cgroupbpf.Allow())
}

// releaseProgram is the body for sock_release: it forgets, and wakes.
func releaseProgram(calls, ring *ebpf.Map) asm.Instructions {
	return cgroupbpf.Join(udpSocket(), loadCookie(), lookupCookie(calls),
		asm.Instructions{
			asm.LoadMapPtr(asm.R1, calls.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, stackKey),
			asm.FnMapDeleteElem.Call(),
		},
		cookieEvent(UDPClose), emit(ring), cgroupbpf.Allow())
}

func udpSocket() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, sockProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, ipprotoUDP, "out"),
	}
}

func cookieEvent(k Kind) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(k)),
		asm.StoreMem(asm.RFP, stackEvent, asm.R1, asm.DWord), // no port
		asm.LoadMem(asm.R1, asm.RFP, stackKey, asm.DWord),
		asm.StoreMem(asm.RFP, stackEvent+8, asm.R1, asm.DWord),
	}
}
