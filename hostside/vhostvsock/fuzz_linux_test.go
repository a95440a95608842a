package vhostvsock

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/tests/wait"
)

// settled waits until the device has no session, and fails the test when it does
// not end.
func settled(t testing.TB, d *Device) {
	t.Helper()
	wait.Until(t, limit, "the session to end", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.session == nil && len(d.conns) == 0
	})
}

// FuzzMessages sends what no QEMU sends. The input is a list of messages: a
// request, flags, the number of descriptors, the length of the body, the body.
func FuzzMessages(f *testing.F) {
	message := func(r request, flags byte, fds byte, body []byte) []byte {
		return append([]byte{byte(r), flags, fds, byte(len(body))}, body...)
	}
	table := words(1, guestLow, regionSize, userLow, hole)
	address := words(0, userLow, userLow+usedOffset, userLow+availOffset, 0)
	f.Add(message(getFeatures, 1, 0, nil))
	f.Add(message(setMemTable, 1, 1, table))
	f.Add(message(getConfig, 1, 0, make([]byte, 20)))
	var start []byte
	start = append(start, message(setFeatures, 1, 0, words(allFeatures&^featureProtocolFeatures))...)
	start = append(start, message(setMemTable, 1, 1, table)...)
	for i := range 2 {
		binary.LittleEndian.PutUint64(address, uint64(i))
		start = append(start, message(setVringNum, 1, 0, pair(i, ringSize))...)
		start = append(start, message(setVringBase, 1, 0, pair(i, 0))...)
		start = append(start, message(setVringAddr, 1, 0, address)...)
		start = append(start, message(setVringCall, 1, 2, pair(i, 0))...)
		start = append(start, message(setVringKick, 1, 2, pair(i, 0))...)
	}
	f.Add(start)
	f.Add(append(start[:len(start):len(start)], message(getVringBase, 1, 0, pair(0, 0))...))
	f.Add(append(start[:len(start):len(start)], message(setMemTable, 1, 0, words(0))...))
	f.Fuzz(func(t *testing.T, input []byte) {
		d, path := newDevice(t)
		fe := newFrontend(t, path)
		go io.Copy(io.Discard, fe.conn)
		for len(input) >= 4 {
			body := input[4:min(len(input), 4+int(input[3]))]
			b := binary.LittleEndian.AppendUint32(nil, uint32(input[0]))
			b = binary.LittleEndian.AppendUint32(b, uint32(input[1]))
			b = binary.LittleEndian.AppendUint32(b, uint32(input[3]))
			var fds []int
			switch input[2] {
			case 1:
				fds = []int{fe.fd}
			case 2:
				fds = []int{fe.rings[0].kick}
			case 3:
				fds = []int{fe.fd, fe.fd, fe.rings[0].callFD}
			}
			var rights []byte
			if fds != nil {
				rights = unix.UnixRights(fds...)
			}
			if _, _, err := fe.conn.WriteMsgUnix(append(b, body...), rights, nil); err != nil {
				break // the device has had enough
			}
			input = input[4+len(body):]
		}
		fe.conn.CloseWrite()
		settled(t, d)
	})
}

// FuzzRings fills rings and buffers with anything while the device works, with a
// connection each way. The input is the descriptors of a ring, the heads that
// are made available, and the packet that all buffers hold.
func FuzzRings(f *testing.F) {
	h := header{sourceCID: testCID, destinationCID: hostCID, sourcePort: 9, destinationPort: 80, kind: typeStream, allocated: windowBytes}
	seed := func(o op, length uint32, descriptors ...[4]uint64) {
		h.op, h.length = o, length
		var packet [headerBytes]byte
		h.encode(&packet)
		b := append([]byte{byte(len(descriptors))}, packet[:]...)
		for _, d := range descriptors {
			b = binary.LittleEndian.AppendUint64(b, d[0])
			b = binary.LittleEndian.AppendUint32(b, uint32(d[1]))
			b = binary.LittleEndian.AppendUint16(b, uint16(d[2]))
			b = binary.LittleEndian.AppendUint16(b, uint16(d[3]))
		}
		f.Add(b, []byte{0, 0, 1, 0, 2}, false)
		f.Add(b, []byte{0, 0, 1, 0, 2}, true)
	}
	for o := range op(9) {
		seed(o, 0, [4]uint64{guestLow + 1<<16, headerBytes})
		seed(o, 100, [4]uint64{guestLow + 1<<16, headerBytes, descriptorNext, 1}, [4]uint64{guestHigh, 100})
	}
	seed(opRW, 1, [4]uint64{guestLow + 1<<16, 50, descriptorWrite | descriptorNext, 1}, [4]uint64{guestHigh, 100, descriptorWrite, 1})
	seed(opRW, ^uint32(0), [4]uint64{guestLow, regionSize, descriptorNext, 1}, [4]uint64{guestLow + regionSize - 10, 11})
	f.Fuzz(func(t *testing.T, input, heads []byte, toGuestToo bool) {
		if len(input) < 1+headerBytes {
			return
		}
		d, path := newDevice(t)
		l, err := d.Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.Write([]byte("hello"))
					io.Copy(io.Discard, c)
				}()
			}
		}()
		fe := newFrontend(t, path)
		fe.negotiate()
		fe.startRings(allFeatures)
		packet, descriptors := input[1:1+headerBytes], input[1+headerBytes:]
		for _, at := range []int{hole + 1<<16, hole + 3<<16, hole + regionSize, hole + regionSize + 100} {
			copy(fe.memory[at:], packet)
		}
		rings := fe.rings[1:]
		if toGuestToo {
			rings = fe.rings[:]
		}
		for _, r := range rings {
			r.mu.Lock()
			copy(r.low[:ringSize*descriptorBytes], descriptors)
			for _, head := range heads {
				r.offer(uint16(head))
			}
			unix.Write(r.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			r.mu.Unlock()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if c, err := d.Dial(ctx, 9); err == nil {
			c.Close()
		}
		// The device still answers QEMU, whatever the guest has done.
		for i := range fe.rings {
			fe.stopRing(i)
		}
		fe.conn.Close()
		settled(t, d)
	})
}
