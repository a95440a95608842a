package redirect

import (
	"github.com/cilium/ebpf/asm"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// The two tuples of the look-up (struct bpf_sock_tuple), as offsets from the
// frame pointer, and what is where in them.
const (
	tuple4      = -16
	tuple4Size  = 12
	tuple6      = tuple4 - 40
	tuple6Size  = 36
	currentNets = -1 // BPF_F_CURRENT_NETNS: the socket's own

	tuple4Source, tuple4Dest         = 0, 4
	tuple4SourcePort, tuple4DestPort = 8, 10
	tuple6Source, tuple6Dest         = 0, 16
	tuple6SourcePort, tuple6DestPort = 32, 34
)

// loopbackTuples fills both tuples: from loopback and port 0 to loopback and
// regPort.
func loopbackTuples() asm.Instructions {
	all := asm.Instructions{
		asm.StoreImm(asm.RFP, tuple4+tuple4Source, int64(loopback4), asm.Word),
		asm.StoreImm(asm.RFP, tuple4+tuple4Dest, int64(loopback4), asm.Word),
	}
	for i, word := range loopback6 {
		all = append(all,
			asm.StoreImm(asm.RFP, tuple6+tuple6Source+4*int16(i), int64(word), asm.Word),
			asm.StoreImm(asm.RFP, tuple6+tuple6Dest+4*int16(i), int64(word), asm.Word))
	}
	return append(all, cgroupbpf.Join(
		asm.Instructions{asm.Mov.Imm(asm.R1, 0)}, sourcePort(),
		asm.Instructions{
			asm.StoreMem(asm.RFP, tuple4+tuple4DestPort, regPort, asm.Half),
			asm.StoreMem(asm.RFP, tuple6+tuple6DestPort, regPort, asm.Half),
		})...)
}

// sourcePort puts R1 into both tuples.
func sourcePort() asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, tuple4+tuple4SourcePort, asm.R1, asm.Half),
		asm.StoreMem(asm.RFP, tuple6+tuple6SourcePort, asm.R1, asm.Half),
	}
}

// servedAtHome leaves for "out" when a socket of the guest would get what is sent
// with either tuple, and goes on at "host" when none would.
func servedAtHome() asm.Instructions {
	return cgroupbpf.Join(
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, ctxProtocol, asm.Word),
			asm.JNE.Imm(asm.R1, protocolUDP, "tcp"),
			asm.LoadMem(asm.R1, regSock, sockSourcePort, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Half),
		},
		sourcePort(),
		askFor(asm.FnSkLookupUdp, tuple4, tuple4Size, "udp6"),
		at("udp6", askFor(asm.FnSkLookupUdp, tuple6, tuple6Size, "host")),
		at("tcp", askFor(asm.FnSkLookupTcp, tuple4, tuple4Size, "tcp6")),
		at("tcp6", askFor(asm.FnSkLookupTcp, tuple6, tuple6Size, "host")),
	)
}

// askFor leaves for "out" when lookUp finds a socket, and else jumps to miss.
func askFor(lookUp asm.BuiltinFunc, tuple int16, size int32, miss string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(tuple)),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, currentNets),
		asm.Mov.Imm(asm.R5, 0),
		lookUp.Call(),
		asm.JEq.Imm(asm.R0, 0, miss),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.FnSkRelease.Call(),
		asm.Ja.Label("out"),
	}
}
