// Package cgroupbpf attaches eBPF programs, written with cilium/ebpf's
// assembler, to the root cgroup, where they see the sockets of every process.
//
// Theory of operation. Programs are attached through links. Those allow other
// users of the same hook beside them (BPF_F_ALLOW_MULTI), and end with the
// process because none is pinned. Since every process of the machine runs the
// programs, they must restrict themselves to the network namespace they are for:
// InNetns is the instructions for that.
//
// Instructions made here keep the program's context in R6, and leave for the
// label "out" (which Allow defines) when the program has nothing to do.
package cgroupbpf
