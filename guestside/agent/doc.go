// Package agent is what runs in the guest: it serves links, reports what
// listens, and connects the flows that hosts open.
//
// Theory of operation. Each session has a goroutine that tells about the agent
// itself, and again when something changes: how host reach stands (package
// hostreach, which is told what each host wants), and what shows that containers
// are isolated (package isolation). Its first report waits a moment for the
// engines' first answers, because what listens is reported only after it, so that
// a host that must not forward knows before it opens a port. Then another
// goroutine follows the tracker of package listeners and reports differences; a
// new session starts with a snapshot.
//
// A TCP flow is dialled in a goroutine of its own, because a dial may hang, and is
// then the session's. A UDP flow is a connected socket of its own and a goroutine
// that reads it. Everything an agent does for a session ends with the session;
// everything else ends with Run.
package agent
