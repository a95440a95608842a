package redirect

import (
	"github.com/cilium/ebpf/asm"

	"github.com/vmbridge/vmbridge/guestside/cgroupbpf"
)

// peer4 is the body for recvmsg4 and getpeername4: the host address becomes
// loopback.
func (p *plan) peer4() asm.Instructions { return p.in4(p.host4, nil) }

// local4 is the body for getsockname4: our own address on the way to the host
// becomes loopback. A server bound to that address for its own reasons keeps it:
// only sockets whose peer is the host count.
func (p *plan) local4() asm.Instructions {
	return p.in4(p.guest4, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, ctxSock, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, sockDestination, asm.Word),
		asm.JNE.Imm32(asm.R1, p.host4, "out"),
	})
}

func (p *plan) in4(shown int32, condition asm.Instructions) asm.Instructions {
	return cgroupbpf.Join(
		begin(),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, ctxIP4, asm.Word),
			asm.JNE.Imm32(asm.R1, shown, "out"),
		},
		condition,
		cgroupbpf.InNetns(p.self.netns),
		onlyCarried("carried"),
		at("carried", setIP4(loopback4)),
		cgroupbpf.Allow(),
	)
}

// peer6 and local6 are the same for IPv6 sockets, whose addresses may be
// IPv4-mapped.
func (p *plan) peer6() asm.Instructions {
	return p.in6(mapped(p.host4), p.host6, func(words) asm.Instructions { return nil })
}

func (p *plan) local6() asm.Instructions {
	return p.in6(mapped(p.guest4), p.guest6, func(host words) asm.Instructions {
		return cgroupbpf.Join(
			asm.Instructions{asm.LoadMem(asm.R2, asm.R6, ctxSock, asm.DWord)},
			equal6(asm.R2, sockDestIP6, host, "out"),
		)
	})
}

// in6 makes loopback of the address shown4, which is IPv4-mapped, and of shown6,
// as far as their families are carried. condition is a further one, given the
// host address of the family.
func (p *plan) in6(shown4, shown6 words, condition func(host words) asm.Instructions) asm.Instructions {
	all := begin()
	if p.carry4 {
		miss := "out"
		if p.carry6 {
			miss = "native"
		}
		all = cgroupbpf.Join(all,
			equal6(asm.R6, ctxIP6, shown4, miss),
			condition(mapped(p.host4)),
			cgroupbpf.InNetns(p.self.netns),
			onlyCarried("carried4"),
			at("carried4", setIP6(mapped(loopback4))),
			asm.Instructions{asm.Ja.Label("out")})
	}
	if p.carry6 {
		all = cgroupbpf.Join(all,
			at("native", equal6(asm.R6, ctxIP6, shown6, "out")),
			condition(p.host6),
			cgroupbpf.InNetns(p.self.netns),
			onlyCarried("carried6"),
			at("carried6", setIP6(loopback6)))
	}
	return cgroupbpf.Join(all, cgroupbpf.Allow())
}
