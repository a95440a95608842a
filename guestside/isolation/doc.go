// Package isolation looks for evidence that the guest's containers are isolated
// from it by Enhanced Container Isolation, which runs them with sysbox-runc.
// Host networking contradicts that. What it means is the host's to decide.
//
// Theory of operation. There are four kinds of evidence. The agent's own user
// namespace is read once: a process does not leave it. Processes named
// sysbox-mgr or sysbox-fs are looked for at start, and then each second, at
// little cost: the kernel tells the last process number that it gave out, so
// only what is between it and the one before is looked at. The default runtime
// of an engine and the runtimes of its containers are asked of the engine
// (package engine) when it is found and after each event that can change them,
// of which it tells by itself. So an engine that runs is not polled.
//
// Each engine has a goroutine, because an engine may hang. One that does not
// answer is asked again after pauses that grow, and what it said last holds
// meanwhile. An engine is found by its socket, at the usual places or where a
// running dockerd was told to listen. A socket at which nobody listens is no
// engine, and a guest without engines is looked at completely.
//
// Names of processes can be feigned by anybody, and an engine can be anybody's.
// So evidence may be false, but everything that is read is bounded.
package isolation
