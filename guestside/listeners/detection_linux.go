package listeners

import (
	"sync"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// States of message.Feature for detection.
const (
	detectEBPF        = "ebpf"
	detectPoll        = "poll"
	detectUnavailable = "unavailable"
)

// detection is how listeners are detected.
type detection struct {
	means message.Feature // does not change once the Tracker is made

	mu       sync.Mutex
	failures map[sockdiag.Protocol]error // of the last look
	changed  chan struct{}
}

// get tells how it stands. A failure of both protocols has one cause.
func (d *detection) get() (message.Feature, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range []sockdiag.Protocol{sockdiag.TCP, sockdiag.UDP} {
		if err := d.failures[p]; err != nil {
			return message.Feature{State: detectUnavailable, Reason: err.Error()}, d.changed
		}
	}
	return d.means, d.changed
}

// failed notes that the sockets of a protocol cannot be seen; nil: that they can.
func (d *detection) failed(p sockdiag.Protocol, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures == nil {
		d.failures = make(map[sockdiag.Protocol]error)
	}
	d.failures[p] = err
	close(d.changed)
	d.changed = make(chan struct{})
}
