package udpbatch

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments is the kernel's UDP_MAX_SEGMENTS before Linux 6.9, when it
	// became 128.
	maxSegments = 64
	// maxSegmented bounds the payload of a segmented send, which must fit an
	// IP packet of 65535 bytes with its headers.
	maxSegmented = 65000
	// maxSegment is the longest datagram worth coalescing: two must fit.
	maxSegment = maxSegmented / 2
)

// segmentation is the longest datagram that may be sent as a segment of a
// larger one (UDP_SEGMENT), zero for none. It only ever shrinks: the device on
// the way may be unable to segment, and segments must fit its MTU.
type segmentation struct{ limit atomic.Int32 }

func (s *segmentation) allow(size int) { s.limit.Store(int32(size)) }

func (s *segmentation) shrink(below int) {
	for {
		old := s.limit.Load()
		if int32(below) > old || s.limit.CompareAndSwap(old, int32(max(below-1, 0))) {
			return
		}
	}
}

// sender is the memory of one sendmmsg.
type sender struct {
	hdrs     [Batch]unix.Mmsghdr
	iovs     [Batch]unix.Iovec
	names    [Batch]sockaddr
	controls [Batch]control
	counts   [Batch]int // datagrams in each message; 0 for one that cannot be addressed
	n        int        // messages planned

	next  int // message to send next
	sent  int // result of the last sendmmsg
	errno syscall.Errno
	fn    func(fd uintptr) bool
}

func newSender() *sender {
	s := new(sender)
	s.fn = func(fd uintptr) bool {
		s.sent, s.errno = sendmmsg(fd, s.hdrs[s.next:s.n])
		return true
	}
	return s
}

func (c *Conn) writeBatch(ds []Datagram) (int, error) {
	s := c.pool.senders.Get().(*sender)
	sent, _, err := c.write(s, ds, int(c.gso.limit.Load()))
	clear(s.iovs[:]) // keep no payload alive
	c.pool.senders.Put(s)
	return sent, err
}

// write sends ds with segments of at most limit bytes. full says that the
// socket's buffer was.
func (c *Conn) write(s *sender, ds []Datagram, limit int) (sent int, full bool, err error) {
	for len(ds) > 0 {
		planned := s.plan(c, ds, limit)
		at := 0 // the datagram that message s.next begins with
		var pending syscall.Errno
		for s.next = 0; s.next < s.n; {
			if err := c.raw.Write(s.fn); err != nil {
				return sent, false, err
			}
			if s.errno == 0 {
				for range s.sent {
					at += s.counts[s.next]
					sent += s.counts[s.next]
					s.next++
				}
				pending = 0
				continue
			}
			count, size := s.counts[s.next], len(ds[at].Payload)
			switch {
			case s.errno == unix.EINTR:
			case s.errno == unix.EAGAIN:
				return sent, true, nil
			case !isSoft(s.errno):
				return sent, false, os.NewSyscallError("sendmmsg", s.errno)
			case pending == 0:
				// An earlier datagram's error may be what was reported, and
				// then this one was not tried yet.
				pending = s.errno
				if count == 1 || !aboutSegments(s.errno) {
					c.soft(os.NewSyscallError("sendmmsg", s.errno))
				}
			case count > 1:
				// One by one it may fit, or at least fail by itself.
				errno := s.errno
				n, full, err := c.write(s, ds[at:at+count], 0)
				sent += n
				if full || err != nil {
					return sent, full, err
				}
				if n > 0 {
					c.learn(errno, size)
				}
				planned = at + count
				s.next = s.n // what came after has to be planned again
			default:
				at++
				s.next++
				pending = 0
			}
		}
		ds = ds[planned:]
	}
	return sent, false, nil
}

// aboutSegments says whether an error may come of sending datagrams as
// segments: no checksums in the device (EIO), or longer than the MTU.
func aboutSegments(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE
}

// learn takes note that datagrams of this size could be sent one by one, but
// not as segments.
func (c *Conn) learn(errno syscall.Errno, size int) {
	switch {
	case errno == unix.EIO:
		c.gso.shrink(0)
	case aboutSegments(errno):
		c.gso.shrink(size)
	}
}

// plan fills s with the messages for the first datagrams of ds and returns how
// many datagrams they are. Runs of datagrams of at most limit bytes that differ
// in nothing but their payload become one message.
func (s *sender) plan(c *Conn, ds []Datagram, limit int) int {
	ds = ds[:min(len(ds), Batch)]
	s.n = 0
	for at := 0; at < len(ds); s.n++ {
		d := &ds[at]
		count := run(ds[at:], limit)
		s.counts[s.n] = count

		for i := range count {
			p := ds[at+i].Payload
			iov := &s.iovs[at+i]
			iov.Base = unsafe.SliceData(p)
			iov.SetLen(len(p))
		}
		h := &s.hdrs[s.n].Hdr
		h.Iov = &s.iovs[at]
		h.SetIovlen(count)

		h.Name, h.Namelen = nil, 0
		if !c.opts.Connected {
			// An address that this socket cannot reach stays empty, and the
			// kernel's EDESTADDRREQ becomes the datagram's soft error.
			if n := put(&s.names[s.n], d.Peer, c.inet6); n != 0 {
				h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.names[s.n])), n
			}
		}

		ctl := &s.controls[s.n]
		used := ctl.addSource(0, d.Local, c.inet6)
		if count > 1 {
			used = ctl.addSegment(used, uint16(len(d.Payload)))
		}
		h.Control = nil
		if used > 0 {
			h.Control = &ctl.data[0]
		}
		h.SetControllen(used)
		at += count
	}
	return len(ds)
}

// run is the number of datagrams at the beginning of ds that can be one
// segmented send: same addresses, same size, only the last one may be shorter.
func run(ds []Datagram, limit int) int {
	first := &ds[0]
	size := len(first.Payload)
	if size == 0 || size > limit {
		return 1
	}
	total, n := size, 1
	for n < len(ds) && n < maxSegments {
		d := &ds[n]
		l := len(d.Payload)
		if l == 0 || l > size || total+l > maxSegmented || d.Peer != first.Peer || d.Local != first.Local {
			break
		}
		n++
		total += l
		if l < size {
			break
		}
	}
	return n
}
