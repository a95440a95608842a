package listeners

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/guestside/wake"
)

// maxNews bounds the sockets that are named in news; with more of them
// everything counts as changed.
const maxNews = 4096

// news collects what woke the tracker since it last looked.
type news struct {
	wake chan struct{} // of capacity 1

	mu     sync.Mutex
	tcp    bool            // a TCP socket changed
	udp    bool            // a UDP socket changed
	bound  bool            // a UDP socket was bound
	closed []uint64        // cookies of UDP sockets that are being closed
	gone   []sockdiag.Gone // sockets of which only the port is known
	// distant holds such sockets that were closed by threads of other network
	// namespaces, and are very likely theirs.
	distant []sockdiag.Gone
}

// take empties the news into the caller's buffers.
func (n *news) take(into *news) {
	n.mu.Lock()
	defer n.mu.Unlock()
	into.tcp, into.udp, into.bound = n.tcp, n.udp, n.bound
	into.closed, n.closed = n.closed, into.closed[:0]
	into.gone, n.gone = n.gone, into.gone[:0]
	into.distant, n.distant = n.distant, into.distant[:0]
	n.tcp, n.udp, n.bound = false, false, false
}

// addEvents takes in events; foreign tells the threads that are known to be in
// another network namespace, whose listen calls are not news. (A socket of ours
// that was handed to such a thread is left to the periodic look.)
func (n *news) addEvents(events []wake.Event, foreign func(thread int) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range events {
		switch e.Kind {
		case wake.TCPListen:
			n.tcp = n.tcp || !foreign(e.Thread)
		case wake.TCPClose:
			gone := &n.gone
			if foreign(e.Thread) {
				gone = &n.distant
			}
			if len(*gone) < maxNews {
				*gone = append(*gone, sockdiag.Gone{Protocol: sockdiag.TCP, Port: e.Port})
			} else {
				n.tcp = true
			}
		case wake.UDPBind:
			n.bound = true
		case wake.UDPClose:
			if len(n.closed) < maxNews {
				n.closed = append(n.closed, e.Cookie)
			} else {
				n.udp = true
			}
		case wake.Overflow:
			n.tcp, n.udp, n.bound = true, true, true
		}
	}
	poke(n.wake)
}

func (n *news) addGone(gone []sockdiag.Gone) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.gone)+len(gone) <= maxNews {
		n.gone = append(n.gone, gone...)
	} else {
		n.tcp, n.udp = true, true
	}
	poke(n.wake)
}

// waitEvents feeds the news from eBPF until the source is closed.
func (t *Tracker) waitEvents(source *wake.Source) {
	var events []wake.Event
	judged := map[int]bool{} // threads of one batch: whether they are foreign
	foreign := func(thread int) bool {
		answer, ok := judged[thread]
		if !ok {
			answer = t.callers && t.owners.Foreign(thread)
			judged[thread] = answer
		}
		return answer
	}
	for {
		var err error
		if events, err = source.Next(events[:0]); err != nil {
			return
		}
		clear(judged)
		t.news.addEvents(events, foreign)
	}
}

// waitDestroyed feeds the news from sock_diag until its socket is closed.
func (t *Tracker) waitDestroyed(destroyed *sockdiag.Destroyed) {
	var gone []sockdiag.Gone
	for {
		var err error
		gone, err = destroyed.Next(gone[:0])
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// Too many at once: the next poll sees them.
		case err != nil:
			return
		default:
			t.news.addGone(gone)
		}
	}
}
