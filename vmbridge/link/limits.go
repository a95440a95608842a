package link

import "cmp"

// SetLimits changes what the session may hold, from now on: lower limits end
// nothing that is open.
//
// maxFlows bounds the flows that the peer has open, and as many again that this
// side has. What the peer opens beyond it is refused, and opening one here is
// ErrTooManyFlows. maxQueuedBytes bounds what is held for sockets that do not
// take it; a flow that would exceed it is reset. Zero stands for the defaults:
// 32,768 flows and 256 MiB.
func (s *Session) SetLimits(maxFlows int, maxQueuedBytes int64) {
	s.maxFlows.Store(int64(cmp.Or(maxFlows, defaultMaxFlows)))
	s.maxQueued.Store(cmp.Or(maxQueuedBytes, defaultMaxQueuedBytes))
}
