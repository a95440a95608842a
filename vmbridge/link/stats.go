package link

import "sync/atomic"

// Stats counts what one forward carries. All flows of a forward share it.
type Stats struct {
	Flows    atomic.Int64  // flows alive now
	BytesIn  atomic.Uint64 // payload bytes from the host's clients to the guest
	BytesOut atomic.Uint64 // payload bytes from the guest to the host's clients
	// DroppedDatagrams counts UDP datagrams that found the link's queue full.
	DroppedDatagrams atomic.Uint64

	retired atomic.Bool
}

// Retire says, for good, that nothing is carried any more for what is counted
// here: opening another flow is ErrRetired, on every session. Those that are open
// end with the CutRetired of their session. Where that follows, none is left and
// none comes.
func (s *Stats) Retire() { s.retired.Store(true) }
