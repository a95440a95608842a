package vhostvsock

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBrokenRings: nonsense in a ring ends its use, and nothing else: the driver
// can begin anew.
func TestBrokenRings(t *testing.T) {
	for name, spoil := range map[string]func(r *vring){
		"index": func(r *vring) { r.next += ringSize + 1; r.offer(0) },
		"head": func(r *vring) {
			r.offer(ringSize)
		},
		"largest head": func(r *vring) { r.offer(0xffff) },
		"next": func(r *vring) {
			r.describe(0, r.guest(0), 10, descriptorNext|r.direction(), ringSize)
			r.offer(0)
		},
		"loop": func(r *vring) {
			r.describe(0, r.guest(0), 10, descriptorNext|r.direction(), 1)
			r.describe(1, r.guest(1), 10, descriptorNext|r.direction(), 0)
			r.offer(0)
		},
		"address": func(r *vring) {
			r.describe(0, guestLow+regionSize-10, 11, r.direction(), 0)
			r.offer(0)
		},
		"largest address": func(r *vring) {
			r.describe(0, ^uint64(0), 11, r.direction(), 0)
			r.offer(0)
		},
		"length": func(r *vring) {
			r.describe(0, guestLow, ^uint32(0), r.direction(), 0)
			r.offer(0)
		},
		"direction": func(r *vring) {
			r.describe(0, r.guest(0), 10, r.direction()^descriptorWrite, 0)
			r.offer(0)
		},
		"table": func(r *vring) {
			r.describe(0, r.guest(0), 16, descriptorTable, 0)
			r.offer(0)
		},
	} {
		for i, where := range []string{"to the guest", "to the host"} {
			t.Run(name+" "+where, func(t *testing.T) {
				testBrokenRing(t, i, spoil)
			})
		}
	}
}

func testBrokenRing(t *testing.T, i int, spoil func(r *vring)) {
	d, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	f.startRings(allFeatures)
	broken, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(broken)
	f.must(setVringErr, pair(i, 0), broken)
	r := f.rings[i]
	r.mu.Lock()
	spoil(r)
	unix.Write(r.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// The device may have seen it already, or sees it when it wants to answer.
	if _, err := d.Dial(ctx, 1); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, ErrNoGuest) {
		t.Errorf("with a broken ring: %v", err)
	}
	if _, err := d.Dial(ctx, 1); !errors.Is(err, ErrNoGuest) {
		t.Errorf("with a broken ring: %v", err)
	}
	if n, err := unix.Read(broken, make([]byte, 8)); n != 8 {
		t.Errorf("the machine was not told: %v", err)
	}
	for i, r := range f.rings {
		f.stopRing(i)
		r.reset()
	}
	f.startRings(allFeatures)
	if !isLive(d) {
		t.Error("the ring cannot be used again")
	}
}

func (r *vring) direction() uint16 {
	if r.index == toGuest {
		return descriptorWrite
	}
	return 0
}

// TestMisplacedRings: a ring that is not in memory is refused when it starts.
func TestMisplacedRings(t *testing.T) {
	_, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	r := f.rings[0]
	if f.do(setVringKick, pair(0, 0), r.kick) {
		t.Error("a ring without a size, a place and memory started")
	}
	f.setMemory()
	for _, n := range []uint32{0, 3, 127, maxRingSize * 2, 1 << 31} {
		if f.do(setVringNum, pair(0, n)) {
			t.Errorf("a ring of %d", n)
		}
	}
	f.must(setVringNum, pair(0, ringSize))
	end := uint64(userLow + regionSize)
	for _, at := range [][3]uint64{
		{0, r.user(usedOffset), r.user(availOffset)},
		{r.user(0), 0, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), 0},
		{end - ringSize*descriptorBytes + 16, r.user(usedOffset), r.user(availOffset)},
		{r.user(0), end - 8*ringSize - 4, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), end - 2*ringSize - 4},
		{^uint64(15), r.user(usedOffset), r.user(availOffset)},
		{r.user(0), ^uint64(3), r.user(availOffset)},
		{r.user(8), r.user(usedOffset), r.user(availOffset)},
		{r.user(0), r.user(usedOffset) + 2, r.user(availOffset)},
		{r.user(0), r.user(usedOffset), r.user(availOffset) + 1},
	} {
		f.must(setVringAddr, words(0, at[0], at[1], at[2], 0))
		if f.do(setVringKick, pair(0, 0), r.kick) {
			t.Errorf("a ring at %#x started", at)
		}
	}
	f.must(setVringAddr, words(0, r.user(0), r.user(usedOffset), r.user(availOffset), 0))
	f.must(setVringKick, pair(0, 0), r.kick)
	for _, m := range []request{setVringNum, setVringBase} {
		if f.do(m, pair(0, ringSize)) {
			t.Errorf("message %d changed a running ring", m)
		}
	}
	if f.do(setVringKick, pair(0, 0), f.fd) || f.do(setVringCall, pair(0, 0), f.fd) {
		t.Error("a file was taken for an eventfd")
	}
	if f.do(setVringKick, words(noDescriptor)) || f.do(setVringKick, pair(0, 0)) {
		t.Error("a ring without kicks")
	}
	f.must(setVringCall, words(noDescriptor))
	for _, m := range []request{setVringNum, setVringBase, setVringKick, setVringCall, setVringEnable, setVringAddr} {
		if f.do(m, pair(2, 0)) {
			t.Errorf("message %d for a ring that there is not", m)
		}
	}
}

// TestBadMemory: tables that cannot be.
func TestBadMemory(t *testing.T) {
	_, path := newDevice(t)
	f := newFrontend(t, path)
	f.negotiate()
	for name, table := range map[string][]uint64{
		"empty region":    {1, 0, 0, 0, 0},
		"beyond the file": {1, 0, regionSize, 0, hole + regionSize + 1},
		"offset wraps":    {1, 0, 4096, 0, ^uint64(0)},
		"guest wraps":     {1, ^uint64(0), 4096, 0, 0},
		"user wraps":      {1, 0, 4096, ^uint64(0) - 10, 0},
		"huge":            {1, 0, 1 << 63, 0, 0},
		"overlap":         {2, 0, 8192, 0, 0, 4096, 4096, 1 << 40, 8192},
		"short":           {1, 0, 4096, 0},
	} {
		fds := []int{f.fd, f.fd}[:table[0]]
		if f.do(setMemTable, words(table...), fds...) {
			t.Errorf("%s: taken", name)
		}
	}
	if f.do(setMemTable, words(2, 0, 4096, 0, 0, 4096, 4096, 4096, 0), f.fd) {
		t.Error("two regions with one descriptor")
	}
	if f.do(setMemTable, words(append([]uint64{9}, make([]uint64, 36)...)...), f.fd) {
		t.Error("nine regions")
	}
	if f.do(setFeatures, words(1<<28)) || f.do(setProtocolFeatures, words(1)) {
		t.Error("features that were not offered")
	}
	if f.do(99, nil) {
		t.Error("message 99")
	}
	f.setMemory()
}
