package vhostvsock

import (
	"bytes"
	"testing"
)

func TestHeader(t *testing.T) {
	want := header{
		sourceCID: 1 << 40, destinationCID: 2, sourcePort: 3, destinationPort: 4, length: 5,
		kind: 6, op: 7, flags: 8, allocated: 9, forwarded: 1 << 31,
	}
	var b [headerBytes]byte
	var got header
	want.encode(&b)
	got.decode(&b)
	if got != want {
		t.Errorf("%+v became %+v", want, got)
	}
}

// TestSendCreditWraps sends across the wrap of the counters.
func TestSendCreditWraps(t *testing.T) {
	s := sendCredit{sent: ^uint32(0) - 1000, forwarded: ^uint32(0) - 1000, allocated: windowBytes}
	for range 100 {
		total := 0
		for {
			n := s.room(1 << 20)
			if n == 0 {
				break
			}
			n = min(n, 3000)
			s.take(n)
			total += n
		}
		if counted := total + len(s.ends)*packetOverhead; counted > windowBytes || counted < windowBytes-8<<10 {
			t.Fatalf("%d packets with %d bytes are under way", len(s.ends), total)
		}
		if !s.update(windowBytes, s.sent-uint32(total/2)) {
			t.Fatal("no more credit")
		}
		if s.room(1<<20) == 0 {
			t.Fatal("no room")
		}
		if !s.update(windowBytes, s.sent) || len(s.ends) != 0 {
			t.Fatalf("%d packets are left", len(s.ends))
		}
	}
}

func TestSendCreditLies(t *testing.T) {
	s := sendCredit{allocated: windowBytes}
	s.take(1000)
	for _, forwarded := range []uint32{1001, 1 << 31, ^uint32(0)} {
		if s.update(windowBytes, forwarded) || s.forwarded != 0 {
			t.Errorf("the guest may say that it took %d of 1000 bytes", forwarded)
		}
	}
	s.update(^uint32(0), 0)
	if room := s.room(1 << 30); room > windowBytes {
		t.Errorf("there is room for %d bytes in a window of %d", room, windowBytes)
	}
	s.update(10, 0) // less than is under way
	if room := s.room(1 << 30); room != 0 {
		t.Errorf("there is room for %d bytes", room)
	}
}

// TestReceiveCredit: the smaller buffer decides when the guest has to hear.
func TestReceiveCredit(t *testing.T) {
	for _, c := range []struct {
		forwarded, told, allocated uint32
		due                        bool
	}{
		{0, 0, windowBytes, false},
		{windowBytes/4 - 1, 0, windowBytes, false},
		{windowBytes / 4, 0, windowBytes, true},
		{windowBytes / 4, 0, ^uint32(0), true},
		{999, 0, 4000, false},
		{1000, 0, 4000, true},
		{1, 0, 0, true},
		{0, 0, 0, false},
		{999, ^uint32(0), 4000, true},
	} {
		r := receiveCredit{forwarded: c.forwarded, told: c.told}
		if r.due(c.allocated) != c.due {
			t.Errorf("%+v: due is %t", c, !c.due)
		}
	}
}

func TestBuffer(t *testing.T) {
	b := buffer{chunks: newChunks()}
	var want []byte
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte(i)}, i*7%5000)
		b.write(p)
		want = append(want, p...)
		got := make([]byte, i*11%5000)
		n := b.read(got)
		if n != min(len(got), len(want)) || !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("round %d: %d other bytes", i, n)
		}
		if want = want[n:]; b.size != len(want) {
			t.Fatalf("round %d: %d bytes are left of %d", i, b.size, len(want))
		}
	}
	b.clear()
	if b.size != 0 || b.head != nil || b.tail != nil {
		t.Errorf("%d bytes are left", b.size)
	}
}

func TestMemory(t *testing.T) {
	low, high := make([]byte, 100), make([]byte, 50)
	m := &memory{regions: []region{
		{guest: 1000, user: 5000, data: low},
		{guest: 1100, user: 9000, data: high}, // next to it for the guest alone
	}}
	for _, c := range []struct {
		address, size uint64
		parts         int
		ok            bool
	}{
		{1000, 100, 1, true}, {1000, 150, 2, true}, {1099, 2, 2, true}, {1149, 1, 1, true},
		{1000, 151, 2, false}, {999, 1, 0, false}, {1150, 1, 0, false}, {1150, 0, 0, true},
		{^uint64(0), 2, 0, false}, {0, ^uint64(0), 0, false}, {1000, ^uint64(0), 2, false},
	} {
		parts, ok := m.slices(nil, c.address, c.size)
		if ok != c.ok || len(parts) != c.parts {
			t.Errorf("%d bytes at %d: %d parts, %t", c.size, c.address, len(parts), ok)
		}
	}
	for _, c := range []struct {
		address, size uint64
		ok            bool
	}{
		{5000, 100, true}, {5000, 101, false}, {5099, 1, true}, {5100, 1, false},
		{4999, 2, false}, {9000, 50, true}, {9049, ^uint64(0), false}, {^uint64(0), 2, false},
	} {
		b, ok := m.user(c.address, c.size)
		if ok != c.ok || ok && len(b) != int(c.size) {
			t.Errorf("%d bytes of the program at %d: %d, %t", c.size, c.address, len(b), ok)
		}
	}
	if _, ok := (*memory)(nil).slices(nil, 0, 1); ok {
		t.Error("no memory has memory")
	}
}
