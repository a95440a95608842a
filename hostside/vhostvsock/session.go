package vhostvsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

// The rings of the device, named from the host. The third, for events, stays in
// QEMU.
const (
	toGuest = 0
	toHost  = 1
)

// session is one connected QEMU. Its goroutines: run handles the messages,
// transmit fills the ring to the guest, receive empties the other, and one for
// each ring reads its kicks and wakes whoever serves it.
type session struct {
	device  *Device
	conn    *net.UnixConn
	arrived chan struct{} // the ring from the guest may have something
	done    chan struct{}
	once    sync.Once
	cause   error // why it ended, set before done is closed
	group   sync.WaitGroup

	// Of the goroutine that handles messages alone.
	features  uint64
	protocol  uint64
	kicks     [2]*os.File
	stoppedAt [2]position
	live      bool

	// memory and rings change while both rings are locked, or the ring alone.
	memory *memory
	rings  [2]ring
}

// position is what tells a ring that goes on from one that begins.
type position struct {
	descriptorsAt, availAt, usedAt uint64
	size, next                     uint16
}

func newSession(d *Device, conn *net.UnixConn) *session {
	s := &session{device: d, conn: conn, arrived: make(chan struct{}, 1), done: make(chan struct{})}
	s.rings[toHost].toHost = true
	return s
}

// run serves the session until it ends, and says why.
func (s *session) run() error {
	s.group.Go(s.transmit)
	s.group.Go(s.receive)
	s.end(s.messages())
	// Nobody touches the guest's memory any more before it is unmapped.
	for i := range s.rings {
		s.stopKick(i)
	}
	s.group.Wait()
	for i := range s.rings {
		r := &s.rings[i]
		r.call.close()
		r.broken.close()
	}
	s.device.setLive(false)
	s.device.drop(syscall.ECONNRESET)
	if s.memory != nil {
		if err := s.memory.close(); err != nil {
			s.device.log("unmap the guest's memory: %v", err)
		}
	}
	return s.cause
}

// end makes run return.
func (s *session) end(why error) {
	s.once.Do(func() {
		s.cause = why
		close(s.done)
		s.conn.Close()
	})
}

func (s *session) messages() (err error) {
	debug.SetPanicOnFault(true)
	defer s.recoverFault()
	for {
		m, err := readMessage(s.conn)
		if err != nil {
			return err
		}
		reply, err := s.handle(&m)
		if err != nil {
			err = fmt.Errorf("message %d: %w", m.request, err)
		}
		if reply == nil && m.needReply && s.protocol&protocolReplyAck != 0 {
			status := uint64(0)
			if err != nil {
				s.device.log("%v", err)
				status, err = 1, nil
			}
			reply = word64(status)
		}
		if err != nil {
			return err
		}
		if reply != nil {
			if err := writeReply(s.conn, m.request, reply); err != nil {
				return err
			}
		}
	}
}

// startKick wakes whoever serves the ring when the guest says that it changed.
func (s *session) startKick(i int, file *os.File) {
	s.kicks[i] = file
	s.group.Go(func() {
		b := make([]byte, 512) // a pipe holds many, an eventfd one
		for {
			if err := readKick(file, b); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					s.end(fmt.Errorf("read a kick: %w", err))
				}
				return
			}
			s.wake(i)
		}
	})
}

func (s *session) stopKick(i int) {
	if f := s.kicks[i]; f != nil {
		f.Close()
		s.kicks[i] = nil
	}
}

func (s *session) wake(i int) {
	if i == toGuest {
		s.device.queue.poke()
		return
	}
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// settle brings the device to life when both rings can be used, and stops it
// when one cannot. It is called after every change. Connections stay when both
// rings go on where they stopped, as those of a guest that was paused do; in any
// other case the driver has begun anew and knows none of them.
func (s *session) settle() {
	s.rings[0].mu.Lock()
	defer s.rings[0].mu.Unlock()
	s.rings[1].mu.Lock()
	defer s.rings[1].mu.Unlock()
	live := true
	for i := range s.rings {
		live = live && s.rings[i].ready()
	}
	if live == s.live {
		return
	}
	s.live = live
	resumed := true
	for i := range s.rings {
		r := &s.rings[i]
		at := position{r.descriptorsAt, r.availAt, r.usedAt, r.size, r.next}
		resumed = resumed && at == s.stoppedAt[i] && at.next != 0
		r.live = live
		if live {
			r.begin()
		} else {
			s.stoppedAt[i] = at
		}
	}
	if live && !resumed {
		s.device.drop(syscall.ECONNRESET)
	}
	s.device.setLive(live)
	if live {
		s.device.log("the guest's driver runs the device (resumed: %t)", resumed)
	}
}
