package redirect

import (
	"github.com/cilium/ebpf/asm"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// Registers of the programs that redirect. Helpers overwrite R0 to R5.
const (
	regForm = asm.R7 // of *6: the destination's form, one of those below
	regPort = asm.R8 // the destination's port in network byte order
	regSock = asm.R9 // the socket
)

// Forms of an IPv6 destination that means loopback.
const (
	formAny    = 0 // ::, which means ::1, or 127.0.0.1 to a socket bound to IPv4
	formMapped = 4
	formNative = 6
)

// source says where a program finds the address that the call goes out from.
type source struct {
	base   asm.Register
	offset int16
}

// connect4 and sendmsg4 redirect an IPv4 destination.
func (p *plan) connect4() asm.Instructions { return p.out4(source{regSock, sockSourceIP4}) }
func (p *plan) sendmsg4() asm.Instructions { return p.out4(source{asm.R6, ctxSourceIP4}) }

// connect6 and sendmsg6 redirect an IPv6 destination.
func (p *plan) connect6() asm.Instructions { return p.out6(source{regSock, sockSourceIP6}) }
func (p *plan) sendmsg6() asm.Instructions { return p.out6(source{asm.R6, ctxSourceIP6}) }

func (p *plan) out4(from source) asm.Instructions {
	return cgroupbpf.Join(
		begin(),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, ctxIP4, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "loopback"),
			asm.JNE.Imm32(asm.R1, loopback4, "out"),
		},
		p.concerned(),
		loopbackTuples(),
		asm.Instructions{
			asm.LoadMem(asm.R1, from.base, from.offset, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "look"),
			// An IPv6 socket bound to ::1, say.
			asm.JEq.Imm32(asm.R1, loopback4OfIP6, "out"),
			asm.StoreMem(asm.RFP, tuple4+tuple4Source, asm.R1, asm.Word),
		},
		at("look", servedAtHome()),
		at("host", setIP4(p.host4)),
		cgroupbpf.Allow(),
	)
}

func (p *plan) out6(from source) asm.Instructions {
	return cgroupbpf.Join(
		begin(),
		p.form6(),
		p.concerned(),
		loopbackTuples(),
		source6(from),
		at("look", servedAtHome()),
		p.toHost6(),
		cgroupbpf.Allow(),
	)
}

// form6 tells in regForm what form of loopback the destination has, and leaves
// when it has none, or one whose family is not carried.
func (p *plan) form6() asm.Instructions {
	mapped, native := "out", "out"
	if p.carry4 {
		mapped = "mapped"
	}
	if p.carry6 {
		native = "native"
	}
	all := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, ctxIP6, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R1, asm.R6, ctxIP6+4, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R1, asm.R6, ctxIP6+8, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, ctxIP6+12, asm.Word),
		asm.JEq.Imm32(asm.R1, mappedPrefix, mapped),
		asm.JNE.Imm(asm.R1, 0, "out"),
		asm.JEq.Imm32(asm.R2, loopback6[3], native),
		asm.JNE.Imm(asm.R2, 0, "out"),
		asm.Mov.Imm(regForm, formAny),
		asm.Ja.Label("loopback"),
	}
	if p.carry6 {
		all = append(all,
			asm.Mov.Imm(regForm, formNative).WithSymbol("native"),
			asm.Ja.Label("loopback"))
	}
	if p.carry4 {
		all = append(all,
			asm.Mov.Imm(regForm, formMapped).WithSymbol("mapped"),
			asm.JEq.Imm(asm.R2, 0, "loopback"),
			asm.JNE.Imm32(asm.R2, loopback4, "out"))
	}
	return all
}

// concerned leaves for "out" when the call is none of ours, the cheapest
// questions first. It fills regPort and regSock.
func (p *plan) concerned() asm.Instructions {
	return cgroupbpf.Join(
		asm.Instructions{
			// Nobody serves port 0. It is also what a message without a
			// destination shows, on a connected socket.
			asm.LoadMem(regPort, asm.R6, ctxPort, asm.Word).WithSymbol("loopback"),
			asm.JEq.Imm(regPort, 0, "out"),
			asm.FnGetCurrentPidTgid.Call(),
			asm.RSh.Imm(asm.R0, 32),
			asm.JEq.Imm(asm.R0, int32(p.self.tgid), "out"),
		},
		cgroupbpf.InNetns(p.self.netns),
		onlyCarried("carried"),
		asm.Instructions{
			asm.LoadMem(regSock, asm.R6, ctxSock, asm.DWord).WithSymbol("carried"),
			asm.LoadMem(asm.R1, regSock, sockDevice, asm.Word),
			asm.JNE.Imm(asm.R1, 0, "out"),
		},
	)
}

// source6 puts the source of the call into the tuple of its family, and leaves
// when that is ::1. To a socket bound to an IPv4-mapped address, :: means IPv4.
func source6(from source) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, from.base, from.offset, asm.Word),
		asm.LoadMem(asm.R2, from.base, from.offset+4, asm.Word),
		asm.LoadMem(asm.R3, from.base, from.offset+8, asm.Word),
		asm.LoadMem(asm.R4, from.base, from.offset+12, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "other"),
		asm.JNE.Imm(asm.R2, 0, "other"),
		asm.JEq.Imm32(asm.R3, mappedPrefix, "bound4"),
		asm.JNE.Imm(asm.R3, 0, "other"),
		asm.JEq.Imm(asm.R4, 0, "look"),
		asm.JEq.Imm32(asm.R4, loopback6[3], "out"),

		asm.StoreMem(asm.RFP, tuple6+tuple6Source, asm.R1, asm.Word).WithSymbol("other"),
		asm.StoreMem(asm.RFP, tuple6+tuple6Source+4, asm.R2, asm.Word),
		asm.StoreMem(asm.RFP, tuple6+tuple6Source+8, asm.R3, asm.Word),
		asm.StoreMem(asm.RFP, tuple6+tuple6Source+12, asm.R4, asm.Word),
		asm.Ja.Label("look"),

		asm.JNE.Imm(regForm, formAny, "mappedSource").WithSymbol("bound4"),
		asm.Mov.Imm(regForm, formMapped),
		asm.JEq.Imm(asm.R4, 0, "look").WithSymbol("mappedSource"),
		asm.StoreMem(asm.RFP, tuple4+tuple4Source, asm.R4, asm.Word),
	}
}

// toHost6 writes the host address in the form of the destination, as far as its
// family is carried.
func (p *plan) toHost6() asm.Instructions {
	var all asm.Instructions
	switch {
	case p.carry4 && p.carry6:
		all = cgroupbpf.Join(
			asm.Instructions{asm.JEq.Imm(regForm, formMapped, "host4")},
			setIP6(p.host6),
			asm.Instructions{asm.Ja.Label("out")},
			at("host4", setIP6(mapped(p.host4))),
		)
	case p.carry4:
		all = cgroupbpf.Join(
			asm.Instructions{asm.JNE.Imm(regForm, formMapped, "out")},
			setIP6(mapped(p.host4)),
		)
	default:
		all = cgroupbpf.Join(
			asm.Instructions{asm.JEq.Imm(regForm, formMapped, "out")},
			setIP6(p.host6),
		)
	}
	return at("host", all)
}
