// Package sandbox is a throw-away guest on a Linux host: a network namespace
// with nothing but a loopback, and the real agent in it. It needs no VM, so it
// is what a newcomer tries first and what tests use.
//
// Theory of operation. The namespace is bound to a name under /run/netns that
// follows from the home and the link, so that a daemon that was killed finds it
// again, with the programs that live in it. One goroutine owns the agent: its
// thread, which runs nothing else, moves into the namespace and never leaves
// again, so that every child it starts is in there too; no mount is touched,
// since remounting /sys, as ip netns exec does, hides the cgroups. The agent
// dies with that thread (Pdeathsig) and is started again when it dies by
// itself. Close stops it, waits, and removes the name; programs that still run
// in the namespace keep it alive without one.
package sandbox
