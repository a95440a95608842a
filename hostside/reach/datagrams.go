package reach

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/message"
	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// association is a UDP flow. Its goroutine connects sockets and reads them; the
// link's reader writes to the one that there is.
type association struct {
	reach *Reach
	flow  *link.DatagramFlow
	usage *usage
	// answered is set with the first reply.
	answered atomic.Bool

	mu     sync.Mutex
	over   bool
	socket *udpSocket // nil before there is one
	// probing lasts until it is plain that the socket has the right address. While
	// it does, kept is what was sent, copied, for the other address.
	probing   bool
	settling  *time.Timer // ends it
	kept      []udpbatch.Datagram
	keptBytes int
	out       []udpbatch.Datagram // memory of receive
}

// udpSocket is a socket connected to one of the addresses.
type udpSocket struct {
	conn    *net.UDPConn
	batch   *udpbatch.Conn
	refused atomic.Bool // nobody is there: the socket was closed for it
}

const (
	// probeTime is how long an address may take to refuse a datagram. On a
	// loopback that is microseconds; a machine that is busy is forgiven.
	probeTime = time.Second
	// keepBytes bounds what is kept of one flow besides the number of datagrams,
	// which is a batch: the largest datagram twice.
	keepBytes = 128 << 10
)

// Datagrams takes over a UDP flow that the guest of a link opened. It has been
// accepted or refused on return.
func (r *Reach) Datagrams(linkName string, f *link.DatagramFlow) {
	a := &association{reach: r, flow: f, probing: true}
	if code := r.admit(a, linkName, message.UDP, f.Destination()); code != 0 {
		f.Refuse(code)
		return
	}
	f.Count(&a.usage.stats)
	f.Accept(a.receive, func(wire.Code) { a.stop() })
	go func() {
		defer r.work.Done()
		a.serve()
	}()
}

// serve connects to the addresses of the destination, one after the other, and
// carries what they answer, until the flow ends.
func (a *association) serve() {
	r := a.reach
	defer r.over(a)
	defer a.stop()
	var failed outcome
	for _, at := range addresses(a.flow.Destination()) {
		err := a.carry(at)
		a.mu.Lock()
		over, probing := a.over, a.probing
		if a.settling != nil {
			a.settling.Stop() // until there is another socket
		}
		a.mu.Unlock()
		if over {
			return
		}
		if errors.Is(err, errRefused) && !probing {
			failed = outcome{err: errGone}
			break
		}
		if !failed.add(at, err) {
			break
		}
	}
	code, state, reason := failed.result(a.flow.Destination())
	r.note(a.usage, state, reason)
	a.flow.Close(code)
}

// carry connects to an address and passes on what comes from there. It returns why
// it cannot any more, which is errRefused where nobody is there.
func (a *association) carry(at netip.AddrPort) error {
	conn, err := a.reach.dialUDP(at)
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &udpSocket{}
	s.batch, err = udpbatch.New(conn, udpbatch.Options{
		Connected: true,
		Pool:      a.reach.pool,
		// It is called by whoever reads or writes.
		SoftError: func(err error) {
			if udpbatch.IsRefused(err) {
				s.refused.Store(true)
				_ = conn.Close()
			}
		},
	})
	if err != nil {
		return err
	}
	s.conn = conn
	if !a.use(s) {
		return net.ErrClosed
	}
	var replies link.DatagramBatch
	pass := func(ds []udpbatch.Datagram) {
		if !a.answered.Swap(true) {
			a.settle()
		}
		for i := range ds {
			replies.Add(a.flow, ds[i].Payload)
		}
		replies.Send()
	}
	for err == nil {
		err = s.batch.ReadBatch(pass)
	}
	if s.refused.Load() {
		return errRefused
	}
	return err
}

// use has the flow go through a socket, and sends what has come before. It is
// false when the flow is over.
func (a *association) use(s *udpSocket) bool {
	a.reach.note(a.usage, Open, "")
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.socket = s
	if a.settling == nil {
		a.settling = time.AfterFunc(probeTime, a.settle)
	} else {
		a.settling.Reset(probeTime)
	}
	_, _ = s.batch.WriteBatch(a.kept)
	return true
}

// receive is called by the link's reader.
func (a *association) receive(payloads [][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	kept := 0
	if a.probing {
		kept = a.keep(payloads)
	}
	if a.socket == nil {
		a.usage.stats.DroppedDatagrams.Add(uint64(len(payloads) - kept))
		return
	}
	a.out = a.out[:0]
	for _, p := range payloads {
		a.out = append(a.out, udpbatch.Datagram{Payload: p})
	}
	// A full socket buffer drops, as it does for a local sender. A socket that was
	// closed meanwhile makes room for another, which gets what was kept.
	_, _ = a.socket.batch.WriteBatch(a.out)
	clear(a.out)
}

// keep copies datagrams, as many as there is room for, and says how many. mu is
// held.
func (a *association) keep(payloads [][]byte) int {
	held := &a.usage.guest.kept
	for i, p := range payloads {
		if len(a.kept) == udpbatch.Batch || a.keptBytes+len(p) > keepBytes {
			return i
		}
		if held.Add(int64(len(p))) > maxKeptBytes {
			held.Add(-int64(len(p)))
			return i
		}
		a.keptBytes += len(p)
		a.kept = append(a.kept, udpbatch.Datagram{Payload: bytes.Clone(p)})
	}
	return len(payloads)
}

// settle ends the probing: the address is the right one.
func (a *association) settle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endProbing()
}

// endProbing is called with mu held.
func (a *association) endProbing() {
	a.probing = false
	a.usage.guest.kept.Add(-int64(a.keptBytes))
	a.kept, a.keptBytes = nil, 0
	if a.settling != nil {
		a.settling.Stop()
	}
}

// stop lets go of everything. It is called at least once.
func (a *association) stop() {
	a.mu.Lock()
	a.over = true
	a.endProbing()
	socket := a.socket
	a.mu.Unlock()
	if socket != nil {
		_ = socket.conn.Close()
	}
}

// join implements flow.
func (a *association) join(u *usage) { a.usage = u }

// cut implements flow.
func (a *association) cut(code wire.Code) {
	a.stop()
	a.flow.Close(code)
}
