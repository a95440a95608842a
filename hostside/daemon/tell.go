package daemon

import "github.com/vmbridge/vmbridge/vmbridge/message"

// tellHost tells the agent, now or when it is there, what the host wants. It does
// not wait for an agent that does not read.
func (g *guest) tellHost(about message.Host) {
	about.Log = g.wantsLog
	g.mu.Lock()
	defer g.mu.Unlock()
	g.host = about
	if g.session == nil {
		return
	}
	if about.HostReach && g.agent.HostReach.State != message.HostReachUnavailable {
		// What it said before is old: it answers everything that it is told.
		g.agent.HostReach = message.Feature{State: message.HostReachOff, Reason: "it is being turned on"}
	}
	g.untold = append(g.untold, about)
	g.startTelling()
}

// startTelling is called with mu held.
func (g *guest) startTelling() {
	if !g.telling && g.isJudged && g.session != nil {
		g.telling = true
		g.applied.Go(g.tell)
	}
}

// tell sends until the agent has been told everything, or the session has ended.
func (g *guest) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.telling = false }()
	for g.session != nil && len(g.untold) > 0 {
		session, about := g.session, g.untold[0]
		g.untold = g.untold[1:]
		g.mu.Unlock()
		err := session.Send(message.Message{Host: &about})
		g.mu.Lock()
		if err != nil {
			return
		}
	}
}
