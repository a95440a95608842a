package vhostvsock

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// guest is a guest's kernel: it does with packets what Linux does, and counts
// what its sockets hold as new kernels count.
type guest struct {
	*frontend
	t     testing.TB
	split func(int) []int // of a packet over descriptors, the header included
	done  sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	socks   map[key]*sock
	listen  map[uint32]func(*sock)
	window  uint32                     // of new sockets
	raw     func(*header, []byte) bool // sees packets first

	packets [8]atomic.Int64 // from the device, by op
}

// linuxSplit is that of Linux 6.1: the header, and the payload in one piece (of
// which no buffer of the test is large enough, so several).
func linuxSplit(n int) []int {
	sizes := []int{headerBytes}
	for n -= headerBytes; n > 0; n -= bufferBytes {
		sizes = append(sizes, min(n, bufferBytes))
	}
	return sizes
}

// raggedSplit cuts the header and the payload at odd places.
func raggedSplit(n int) []int {
	sizes := []int{1, 0, 30}
	for n -= 31; n > 0; {
		size := min(n, 7001)
		sizes = append(sizes, size)
		n -= size
	}
	return sizes
}

const allFeatures = deviceFeatures

// newGuest boots a guest whose driver runs the device.
func newGuest(t testing.TB, d *Device, path string, features uint64) *guest {
	t.Helper()
	return bootGuest(t, d, newFrontend(t, path), features)
}

func bootGuest(t testing.TB, d *Device, f *frontend, features uint64) *guest {
	t.Helper()
	g := &guest{
		frontend: f, t: t, split: linuxSplit,
		socks: make(map[key]*sock), listen: make(map[uint32]func(*sock)), window: windowBytes,
	}
	g.changed.L = &g.mu
	g.negotiate()
	g.boot(features)
	g.done.Go(func() { g.rings[toGuest].serve(g.received) })
	g.done.Go(func() { g.rings[toHost].serve(func([]byte) {}) })
	t.Cleanup(g.stop)
	wait.Until(t, limit, "a guest", func() bool { return isLive(d) })
	return g
}

func isLive(d *Device) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live
}

// boot sets the rings up as a driver that begins does.
func (g *guest) boot(features uint64) {
	g.t.Helper()
	for _, r := range g.rings {
		r.reset()
		r.events = features&featureEventIndex != 0
	}
	g.startRings(features)
	for range ringSize / 2 {
		g.rings[toGuest].put([]int{headerBytes, 4096}, nil)
	}
}

// stop ends the guest without a word to the device.
func (g *guest) stop() {
	for _, r := range g.rings {
		r.call.Close()
		r.stop()
	}
	g.mu.Lock()
	for _, s := range g.socks {
		s.gone()
	}
	g.changed.Broadcast()
	g.mu.Unlock()
	g.done.Wait()
}

func (g *guest) received(b []byte) {
	g.rings[toGuest].put([]int{headerBytes, 4096}, nil)
	var h header
	h.decode((*[headerBytes]byte)(b))
	g.packets[h.op].Add(1)
	g.mu.Lock()
	raw := g.raw
	g.mu.Unlock()
	if raw != nil && raw(&h, b[headerBytes:]) {
		return
	}
	if h.sourceCID != hostCID || h.destinationCID != testCID || int(h.length) != len(b)-headerBytes {
		g.t.Errorf("a packet from %d to %d with %d bytes of %d", h.sourceCID, h.destinationCID, len(b)-headerBytes, h.length)
	}
	g.dispatch(&h, b[headerBytes:])
}

func (g *guest) dispatch(h *header, payload []byte) {
	k := key{guest: h.destinationPort, host: h.sourcePort}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.socks[k]
	switch {
	case s != nil:
		s.handle(h, payload)
	case h.op == opReset:
	case h.op == opRequest && g.listen[k.guest] != nil:
		s := g.newSock(k, h)
		s.state = open
		serve := g.listen[k.guest]
		g.later(s.header(opResponse), nil)
		g.done.Go(func() { serve(s) })
	default:
		g.later(header{
			sourceCID: testCID, destinationCID: hostCID,
			sourcePort: k.guest, destinationPort: k.host, kind: typeStream, op: opReset,
		}, nil)
	}
	g.changed.Broadcast()
}

// later sends from where mu is held: the ring may be full, but the device always
// empties it.
func (g *guest) later(h header, payload []byte) { g.send1(&h, payload) }

func (g *guest) send1(h *header, payload []byte) bool {
	var b [headerBytes]byte
	h.encode(&b)
	data := append(b[:], payload...)
	return g.rings[toHost].put(g.split(len(data)), data)
}

// sock is a socket of the guest; everything is guarded by the guest's lock.
type sock struct {
	g                             *guest
	key                           key
	state                         phase
	queue                         [][]byte
	used, forwarded, told, window uint32
	sent, peerWindow, peerTaken   uint32
	peerShut, shut                uint32
	reset                         bool
}

func (g *guest) newSock(k key, h *header) *sock {
	s := &sock{g: g, key: k, window: g.window, peerWindow: h.allocated, peerTaken: h.forwarded}
	g.socks[k] = s
	return s
}

func (s *sock) header(o op) header {
	s.told = s.forwarded
	return header{
		sourceCID: testCID, destinationCID: hostCID,
		sourcePort: s.key.guest, destinationPort: s.key.host, kind: typeStream,
		op: o, allocated: s.window, forwarded: s.forwarded,
	}
}

func (s *sock) handle(h *header, payload []byte) {
	s.peerWindow, s.peerTaken = h.allocated, h.forwarded
	if s.state == dialing && h.op != opResponse && h.op != opReset {
		s.g.t.Errorf("op %d came before the response", h.op)
	}
	switch h.op {
	case opResponse:
		s.state = open
	case opReset:
		s.reset = true
		s.gone()
	case opRW:
		// As in virtio_transport_inc_rx_pkt of 2026.
		if uint32(len(s.queue)+1)*576+s.used+h.length > s.window {
			s.g.t.Errorf("%d packets with %d bytes wait, and %d more came", len(s.queue), s.used, h.length)
		}
		if s.shut&shutReceive != 0 {
			return
		}
		s.queue = append(s.queue, append([]byte(nil), payload...))
		s.used += h.length
	case opShutdown:
		s.peerShut |= h.flags
		s.resetWhenDone()
	case opCreditRequest:
		s.g.later(s.header(opCreditUpdate), nil)
	}
}

// resetWhenDone: Linux answers the end of both directions once its reader has
// everything.
func (s *sock) resetWhenDone() {
	if s.peerShut == shutBoth && len(s.queue) == 0 && s.state == open {
		s.g.later(s.header(opReset), nil)
		s.gone()
	}
}

func (s *sock) gone() {
	s.state = gone
	delete(s.g.socks, s.key)
}

// Read blocks until there is something, and takes at most one packet.
func (s *sock) Read(p []byte) (int, error) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for len(s.queue) == 0 {
		if s.state == gone || s.peerShut&shutSend != 0 {
			return 0, io.EOF
		}
		s.g.changed.Wait()
	}
	n := copy(p, s.queue[0])
	if s.queue[0] = s.queue[0][n:]; len(s.queue[0]) == 0 {
		s.queue = s.queue[1:]
	}
	s.used -= uint32(n)
	s.forwarded += uint32(n)
	if s.state == open && s.window-(s.forwarded-s.told) < 64<<10 {
		s.g.later(s.header(opCreditUpdate), nil)
	}
	s.resetWhenDone()
	return n, nil
}

// Write sends packets of at most 64 KiB, as far as the device has room.
func (s *sock) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		s.g.mu.Lock()
		for s.state == open && s.peerShut&shutReceive == 0 && s.credit() == 0 {
			s.g.changed.Wait()
		}
		if s.state != open || s.peerShut&shutReceive != 0 {
			s.g.mu.Unlock()
			return total, io.ErrClosedPipe
		}
		n := min(len(p)-total, int(s.credit()), 64<<10)
		s.sent += uint32(n)
		h := s.header(opRW)
		h.length = uint32(n)
		s.g.later(h, p[total:total+n])
		s.g.mu.Unlock()
		total += n
	}
	return total, nil
}

// credit is limited by the own buffer as well, as in new kernels.
func (s *sock) credit() uint32 {
	return min(s.peerWindow, s.window) - (s.sent - s.peerTaken)
}

func (s *sock) shutdown(flags uint32) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.state != open {
		return
	}
	s.shut |= flags
	h := s.header(opShutdown)
	h.flags = s.shut
	s.g.later(h, nil)
}

// Close ends both directions and does not wait for the answer.
func (s *sock) Close() error {
	s.g.mu.Lock()
	both := s.state == open && s.peerShut == shutBoth
	if both {
		s.g.later(s.header(opReset), nil)
		s.gone()
	}
	s.g.mu.Unlock()
	if !both {
		s.shutdown(shutBoth)
	}
	return nil
}

// serve makes the guest listen.
func (g *guest) serve(port uint32, handle func(*sock)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listen[port] = handle
}

// dial opens a connection to the host; nil when it was refused.
func (g *guest) dial(port, from uint32) *sock {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.newSock(key{guest: from, host: port}, &header{})
	g.later(s.header(opRequest), nil)
	for s.state == dialing {
		g.changed.Wait()
	}
	if s.state == gone {
		return nil
	}
	return s
}

// count is how many sockets the guest has.
func (g *guest) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.socks)
}

// inject sends a packet as it is.
func (g *guest) inject(h header, payload []byte) {
	if h.sourceCID == 0 {
		h.sourceCID, h.destinationCID, h.kind = testCID, hostCID, typeStream
	}
	if h.length == 0 {
		h.length = uint32(len(payload))
	}
	g.send1(&h, payload)
}
