package link

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// DatagramFlow is one UDP association: the datagrams between one client and one
// service. Nothing ends it but Close, the peer, and the end of the session.
type DatagramFlow struct {
	conn        *conn
	id          uint32
	source      netip.AddrPort
	destination netip.AddrPort
	stats       *Stats
	// inbound and outbound count payload from and to the link.
	inbound, outbound *atomic.Uint64

	receive func(payloads [][]byte) // used by the connection's reader alone
	closed  atomic.Bool

	mu    sync.Mutex
	ended func(wire.Code) // nil once it was called
}

// Source is the client's address, as the opening side saw it.
func (f *DatagramFlow) Source() netip.AddrPort { return f.source }

// Destination is where the opening side wants the datagrams to go.
func (f *DatagramFlow) Destination() netip.AddrPort { return f.destination }

// Count has a flow that the peer opened counted in stats, and not in the
// session's. It is called before Accept.
func (f *DatagramFlow) Count(stats *Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() {
		return
	}
	f.stats.Flows.Add(-1)
	stats.Flows.Add(1)
	f.stats, f.inbound, f.outbound = stats, &stats.BytesIn, &stats.BytesOut
}

// Accept answers a flow that the peer opened. See Session.OpenDatagrams for the
// two functions.
func (f *DatagramFlow) Accept(receive func(payloads [][]byte), ended func(wire.Code)) {
	f.receive = receive
	f.mu.Lock()
	over := f.closed.Load()
	if !over {
		f.ended = ended
	}
	f.mu.Unlock()
	if over {
		ended(wire.CodeShutdown)
	}
}

// Refuse answers a flow that the peer opened and that cannot be served.
func (f *DatagramFlow) Refuse(code wire.Code) { f.Close(code) }

// Close ends the flow on both sides. The function ended is not called.
func (f *DatagramFlow) Close(code wire.Code) {
	if f.end() {
		f.conn.out.post(wire.AppendCode(nil, wire.TypeReset, f.id, code))
	}
}

// Closed tells whether the flow has ended.
func (f *DatagramFlow) Closed() bool { return f.closed.Load() }

// over implements flow.
func (f *DatagramFlow) over() bool { return f.closed.Load() }

// counted implements flow.
func (f *DatagramFlow) counted() *Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *DatagramFlow) end() bool {
	if f.closed.Swap(true) {
		return false
	}
	f.conn.remove(f.id)
	f.counted().Flows.Add(-1)
	return true
}

// cut implements flow.
func (f *DatagramFlow) cut(notify bool) {
	if !f.end() {
		return
	}
	if notify {
		f.conn.out.post(wire.AppendCode(nil, wire.TypeReset, f.id, wire.CodeShutdown))
	}
	f.tellEnded(wire.CodeShutdown)
}

// peerEnded is called by the reader.
func (f *DatagramFlow) peerEnded(code wire.Code) {
	if f.end() {
		f.tellEnded(code)
	}
}

func (f *DatagramFlow) tellEnded(code wire.Code) {
	f.mu.Lock()
	ended := f.ended
	f.ended = nil
	f.mu.Unlock()
	if ended != nil {
		ended(code)
	}
}

func (f *DatagramFlow) deliver(payloads [][]byte) {
	if f.closed.Load() || f.receive == nil {
		return
	}
	size := 0
	for _, p := range payloads {
		size += len(p)
	}
	f.inbound.Add(uint64(size))
	f.receive(payloads)
}

// DatagramBatch collects datagrams of one or more flows, so that a burst costs
// one write. It is used by one goroutine at a time; the zero value is ready.
type DatagramBatch struct {
	conn   *conn
	stats  *Stats
	frames []byte
	count  int
}

// batchBytes is when a batch is sent without being asked.
const batchBytes = 64 << 10

// Add copies a datagram into the batch. It may send what the batch holds.
func (b *DatagramBatch) Add(f *DatagramFlow, payload []byte) {
	if len(payload) > wire.MaxDatagram || f.closed.Load() {
		return
	}
	if b.count > 0 && (b.conn != f.conn || b.stats != f.stats || len(b.frames)+len(payload) > batchBytes) {
		b.Send()
	}
	b.conn, b.stats = f.conn, f.stats
	b.frames = wire.AppendFrame(b.frames, wire.TypeDatagram, f.id, payload)
	b.count++
	f.outbound.Add(uint64(len(payload)))
}

// Send passes what the batch holds to the link, or drops it when the link's
// queue of datagrams is full. It does not block.
func (b *DatagramBatch) Send() {
	if b.count == 0 {
		return
	}
	stats := b.stats
	b.conn.out.postDatagrams(b.frames, b.count, func(n int) { stats.DroppedDatagrams.Add(uint64(n)) })
	b.frames, b.count = b.frames[:0], 0
	if cap(b.frames) > 2*batchBytes {
		b.frames = nil
	}
}
