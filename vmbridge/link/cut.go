package link

// CutFlows resets every flow at once, on both sides; the session stays.
func (s *Session) CutFlows() { s.cutFlows(func(flow) bool { return true }) }

// CutRetired resets the flows that are counted in retired Stats, on both sides.
func (s *Session) CutRetired() { s.cutFlows(func(f flow) bool { return f.counted().retired.Load() }) }

func (s *Session) cutFlows(which func(flow) bool) {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	for _, c := range conns {
		c.cutFlows(true, which)
	}
}

// cutFlows ends flows of a connection; with notify the peer is told.
func (c *conn) cutFlows(notify bool, which func(flow) bool) {
	c.mu.Lock()
	flows := make([]flow, 0, len(c.flows))
	for _, f := range c.flows {
		flows = append(flows, f)
	}
	c.mu.Unlock()
	for _, f := range flows {
		if which(f) {
			f.cut(notify)
		}
	}
}
