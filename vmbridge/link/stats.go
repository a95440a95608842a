package link

import "sync/atomic"

// Stats counts what one forward carries. All flows of a forward share it.
type Stats struct {
	Flows    atomic.Int64  // flows alive now
	BytesIn  atomic.Uint64 // payload bytes from the host's clients to the guest
	BytesOut atomic.Uint64 // payload bytes from the guest to the host's clients
	// DroppedDatagrams counts UDP datagrams that found the link's queue full.
	DroppedDatagrams atomic.Uint64
}
