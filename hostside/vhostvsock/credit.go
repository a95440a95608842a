package vhostvsock

// Sizes of one connection. Linux gives its sockets 256 KiB as well.
const (
	// windowBytes is what a connection buffers of what the guest sent, and the
	// most it has under way to the guest.
	windowBytes = 256 << 10
	// sendBytes is what Write takes before it waits for the guest.
	sendBytes = 256 << 10
	// packetOverhead is what a packet costs beside its payload. Linux counts
	// SKB_TRUESIZE(0), 576 bytes on 64 bits, for every packet that waits for
	// the reader, and resets a connection that exceeds its buffer with it
	// (since 2026, and in the stable series: "vsock/virtio: fix potential
	// unbounded skb queue"). A little is added for kernels with more in a skb.
	packetOverhead = 640
	// smallPacket is what is worth sending while more waits.
	smallPacket = 2 << 10
)

// sendCredit tells how much the guest can take. All counters wrap.
type sendCredit struct {
	sent      uint32 // bytes sent, ever
	allocated uint32 // the guest's buffer
	forwarded uint32 // bytes that the guest's reader has taken
	// ends holds for each packet that the guest may still queue the value of
	// sent after it. packetOverhead bounds it to windowBytes/packetOverhead.
	ends []uint32
}

// update takes what a packet of the guest says, and reports whether there is
// more credit now.
func (s *sendCredit) update(allocated, forwarded uint32) bool {
	more := allocated > s.allocated
	s.allocated = allocated
	// A guest cannot have taken more than it was sent.
	if took := forwarded - s.forwarded; took != 0 && took <= s.sent-s.forwarded {
		s.forwarded = forwarded
		more = true
	}
	inFlight := s.sent - s.forwarded
	done := 0
	for done < len(s.ends) && s.sent-s.ends[done] >= inFlight {
		done++
	}
	if done > 0 {
		s.ends = s.ends[:copy(s.ends, s.ends[done:])]
	}
	return more
}

// room is the payload that a packet may have now when queued bytes wait. It is
// zero when sending has to wait for the guest.
func (s *sendCredit) room(queued int) int {
	window := min(s.allocated, windowBytes)
	used := s.sent - s.forwarded
	alone := len(s.ends) == 0
	counted := used + uint32(len(s.ends)+1)*packetOverhead
	switch {
	case counted < window:
		room := int(window - counted)
		if !alone && room < queued && room < smallPacket {
			return 0
		}
		return min(room, queued)
	case alone && used < window:
		// A buffer so small that no packet fits by the new count: an old kernel
		// takes it, and no other way is left.
		return min(int(window-used), queued)
	}
	return 0
}

func (s *sendCredit) take(n int) {
	s.sent += uint32(n)
	s.ends = append(s.ends, s.sent)
}

// receiveCredit tells when the guest has to hear that its data was read.
type receiveCredit struct {
	forwarded uint32 // bytes that our reader has taken
	told      uint32 // what the guest knows of it
}

// due reports whether the guest may wait for an update. Newer kernels send no
// more than their own buffer holds, so the smaller of both buffers counts.
func (r *receiveCredit) due(allocated uint32) bool {
	return r.forwarded-r.told >= max(1, min(windowBytes, allocated)/4)
}
