package redirect

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf/asm"
)

// Field offsets of struct bpf_sock_addr (include/uapi/linux/bpf.h), the context
// of the programs. Addresses and user_port are in network byte order.
const (
	ctxIP4       = 4
	ctxIP6       = 8
	ctxPort      = 24
	ctxProtocol  = 36
	ctxSourceIP4 = 40 // only for sendmsg4
	ctxSourceIP6 = 44 // only for sendmsg6
	ctxSock      = 64
)

// Field offsets of struct bpf_sock.
const (
	sockDevice      = 0
	sockSourceIP4   = 24
	sockSourceIP6   = 28
	sockSourcePort  = 44 // in host byte order, unlike the others
	sockDestination = 52 // the peer's IPv4 address
	sockDestIP6     = 56
)

const (
	protocolTCP   = 6
	protocolUDP   = 17
	protocolMPTCP = 262
)

// words is an IPv6 address as the programs compare and store it: four words of
// network byte order, read as the machine reads words.
type words [4]int32

func word4(a netip.Addr) int32 {
	b := a.As4()
	return int32(binary.NativeEndian.Uint32(b[:]))
}

func words6(a netip.Addr) words {
	b := a.As16()
	var w words
	for i := range w {
		w[i] = int32(binary.NativeEndian.Uint32(b[4*i:]))
	}
	return w
}

var (
	loopback4 = word4(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	loopback6 = words6(netip.IPv6Loopback())
	// mappedPrefix is the third word of every IPv4-mapped address.
	mappedPrefix = mapped(0)[2]
	// loopback4OfIP6 is what the kernel takes for the IPv4 address of an IPv6
	// socket that is bound to an address without one (LOOPBACK4_IPV6).
	loopback4OfIP6 = word4(netip.AddrFrom4([4]byte{127, 0, 0, 6}))
)

// mapped gives the IPv4-mapped form of an address.
func mapped(ip4 int32) words {
	w := words6(netip.AddrFrom16(netip.IPv4Unspecified().As16()))
	w[3] = ip4
	return w
}

// begin keeps the context in R6.
func begin() asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
}

// setIP4 overwrites the address of the call.
func setIP4(ip4 int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm32(asm.R1, ip4),
		asm.StoreMem(asm.R6, ctxIP4, asm.R1, asm.Word),
	}
}

// setIP6 overwrites the address of the call.
func setIP6(w words) asm.Instructions {
	var all asm.Instructions
	for i, word := range w {
		all = append(all,
			asm.Mov.Imm32(asm.R1, word),
			asm.StoreMem(asm.R6, ctxIP6+4*int16(i), asm.R1, asm.Word))
	}
	return all
}

// equal6 jumps to miss when the address at offset of base is another one. The
// last word, which tells most addresses apart, is compared first.
func equal6(base asm.Register, offset int16, w words, miss string) asm.Instructions {
	var all asm.Instructions
	for i := len(w) - 1; i >= 0; i-- {
		all = append(all,
			asm.LoadMem(asm.R1, base, offset+4*int16(i), asm.Word),
			asm.JNE.Imm32(asm.R1, w[i], miss))
	}
	return all
}

// onlyCarried goes on at carried when the socket's protocol is carried, and else
// leaves for "out".
func onlyCarried(carried string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, ctxProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, protocolTCP, carried),
		asm.JEq.Imm(asm.R1, protocolUDP, carried),
		asm.JNE.Imm(asm.R1, protocolMPTCP, "out"),
	}
}

// at names the first of the instructions.
func at(label string, all asm.Instructions) asm.Instructions {
	all[0] = all[0].WithSymbol(label)
	return all
}
