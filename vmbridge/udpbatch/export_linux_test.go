package udpbatch

// DisableSegments makes c send every datagram by itself.
func (c *Conn) DisableSegments() { c.gso.allow(0) }

// Held returns how many arenas are lent and how many bytes of large datagrams
// the idle ones keep.
func (p *Pool) Held() (lent, resident int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.idle {
		resident += a.resident
	}
	return p.lent, resident
}

// KeepResident bounds what an idle arena keeps.
const KeepResident = keepResident

// SegmentLimit is the longest datagram that c still tries to send as a segment.
func (c *Conn) SegmentLimit() int { return int(c.gso.limit.Load()) }
