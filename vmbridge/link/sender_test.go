package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// testPairs are connections with and without non-blocking writes.
func testPairs(t *testing.T) map[string][2]net.Conn {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = a.(*net.UnixConn).SetWriteBuffer(8 << 10)
	c, d := net.Pipe()
	for _, nc := range []net.Conn{a, b, c, d} {
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { _ = nc.Close() })
	}
	return map[string][2]net.Conn{"unix": {a, b}, "memory": {c, d}}
}

// Everybody who writes gets a turn, frames stay whole, those of one writer stay
// in order, and nothing is left behind when all is quiet.
func TestSenderPassesOwnership(t *testing.T) {
	for name, pair := range testPairs(t) {
		t.Run(name, func(t *testing.T) {
			s := newSender(pair[0])
			var goroutines sync.WaitGroup
			goroutines.Go(func() { _ = s.run() })

			const frames = 400
			var work sync.WaitGroup
			var dropped atomic.Int64
			writers := uint32(0)
			start := func(sizes []int, send func(frame []byte)) {
				id := writers
				writers++
				work.Go(func() {
					for i := range frames {
						payload := make([]byte, 8+sizes[i%len(sizes)])
						binary.BigEndian.PutUint64(payload, uint64(i))
						send(wire.AppendFrame(nil, wire.TypeData, id, payload))
					}
				})
			}
			write := func(frame []byte) {
				if err := s.write(frame); err != nil {
					t.Error(err)
				}
			}
			for range 4 {
				start([]int{0, 10, 1000}, write)
				start([]int{0, coalesceBytes, 60_000}, write)
				start([]int{0, 5}, s.post)
			}
			datagrams := writers
			for range 2 {
				start([]int{100, 1500}, func(frame []byte) {
					s.postDatagrams(frame, 1, func(n int) { dropped.Add(int64(n)) })
				})
			}

			next := map[uint32]uint64{}
			counted := make(chan error, 1)
			var arrived atomic.Int64
			go func() {
				for {
					h, payload, err := ReadFrame(pair[1])
					if err != nil {
						counted <- err
						return
					}
					seq := binary.BigEndian.Uint64(payload)
					if h.Flow < datagrams && seq != next[h.Flow] || seq < next[h.Flow] {
						counted <- errors.New("a frame is lost or out of order")
						return
					}
					next[h.Flow] = seq + 1
					arrived.Add(1)
				}
			}()
			work.Wait()
			want := int64(writers) * frames
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for limit := time.Now().Add(20 * time.Second); arrived.Load()+dropped.Load() < want; <-tick.C {
				if len(counted) > 0 || time.Now().After(limit) {
					t.Fatalf("%d of %d frames have arrived, %d were dropped", arrived.Load(), want, dropped.Load())
				}
			}
			s.mu.Lock()
			if s.busy || len(s.pending) > 0 || len(s.waiting) > 0 || s.inQueue > 0 {
				t.Errorf("at rest: busy %t, %d bytes pending, %d writers waiting, %d bytes of datagrams", s.busy, len(s.pending), len(s.waiting), s.inQueue)
			}
			s.mu.Unlock()
			s.fail(ErrClosed)
			_ = pair[0].Close()
			goroutines.Wait()
			if err := <-counted; !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
}

// When a connection fails, all who wait for it are told, and nobody hangs.
func TestSenderFails(t *testing.T) {
	for name, pair := range testPairs(t) {
		t.Run(name, func(t *testing.T) {
			s := newSender(pair[0])
			var work sync.WaitGroup
			work.Go(func() {
				if err := s.run(); !errors.Is(err, ErrPeerDead) {
					t.Errorf("run ended with %v", err)
				}
			})
			var waiting sync.WaitGroup
			for range 20 {
				waiting.Go(func() {
					frame := wire.AppendFrame(nil, wire.TypeData, 1, make([]byte, 100_000))
					for s.write(frame) == nil {
					}
				})
			}
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for full := false; !full; <-tick.C { // nobody reads
				s.mu.Lock()
				full = len(s.waiting) == 19
				s.mu.Unlock()
			}
			s.post([]byte("never sent"))
			s.fail(ErrPeerDead) // alone, without closing the connection
			waiting.Wait()
			work.Wait()
			s.farewell([]byte("x"), time.Now().Add(time.Hour))
			s.postDatagrams([]byte("x"), 1, func(int) {})
		})
	}
}

// Datagrams wait in a small queue, which does not stand for long, and every one
// that is given up is counted.
func TestDatagramsOfAStalledSenderAreDropped(t *testing.T) {
	pair := testPairs(t)["memory"] // which takes nothing while nobody reads
	s := newSender(pair[0])
	var work sync.WaitGroup
	work.Go(func() { _ = s.run() })
	frame := wire.AppendFrame(nil, wire.TypeDatagram, 1, make([]byte, 1000))
	dropped := 0
	const count = 1000
	s.postDatagrams(frame, 1, func(int) {})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for stuck := false; !stuck; <-tick.C { // the first is being written
		s.mu.Lock()
		stuck = len(s.pending) == 0
		s.mu.Unlock()
	}
	for range count - 1 {
		s.postDatagrams(frame, 1, func(n int) { dropped += n })
	}
	if kept := count - dropped; kept*len(frame) > datagramBytes+2*len(frame) || kept < 200 {
		t.Errorf("%d of %d are kept", kept, count)
	}
	s.mu.Lock()
	for i := range s.queued {
		s.queued[i].since = s.queued[i].since.Add(-2 * datagramAge)
	}
	s.mu.Unlock()
	// A frame that is written now has only the first datagram and the last of the
	// queue around it.
	last := shortQueue / len(frame)
	want := wire.AppendFrame(nil, wire.TypePing, 0, []byte("now"))
	work.Go(func() { _ = s.write(want) })
	pings := 0
	for range 1 + 1 + last {
		h, payload, err := ReadFrame(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if h.Type == wire.TypePing && bytes.Equal(payload, []byte("now")) {
			pings++
		}
	}
	if pings != 1 {
		t.Errorf("the frame came %d times", pings)
	}
	s.fail(ErrClosed)
	work.Wait()
	if dropped != count-1-last {
		t.Errorf("%d of %d were dropped, want all but %d", dropped, count, 1+last)
	}
}

// Credit cannot overflow.
func TestCreditIsBounded(t *testing.T) {
	s := &Stream{credit: maxCredit - 1}
	s.addCredit(1<<32 - 1)
	s.addCredit(1<<32 - 1)
	if s.credit != maxCredit {
		t.Errorf("credit %d", s.credit)
	}
}
