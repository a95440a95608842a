package udpbatch_test

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/udpbatch"
)

// TestRefusals holds E4: answers of closed ports end neither a connected nor an
// unconnected socket, and the connected one hears of them.
func TestRefusals(t *testing.T) {
	gone := listen(t, "udp4", "127.0.0.1:0")
	closed := addrOf(gone)
	gone.Close()

	var refusals atomic.Int64
	heard := make(chan struct{}, 1)
	raw := dial(t, closed)
	c := batched(t, raw, udpbatch.Options{Connected: true, SoftError: func(err error) {
		if !udpbatch.IsRefused(err) {
			t.Errorf("unexpected soft error: %v", err)
		}
		if refusals.Add(1) == 1 {
			heard <- struct{}{}
		}
	}})
	got := make(chan string, 1)
	serve(t, raw, c, func(ds []udpbatch.Datagram) { got <- string(ds[0].Payload) })
	ds := make([]udpbatch.Datagram, 16)
	for i := range ds {
		ds[i].Payload = []byte("anybody?")
	}
	for range 200 {
		if _, err := c.WriteBatch(ds); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-heard:
	case <-time.After(deadline):
		t.Fatal("nobody told of the refusals")
	}

	// The same socket works as soon as somebody listens.
	back, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(closed))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := c.WriteBatch([]udpbatch.Datagram{{Payload: []byte("ping")}}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	back.SetDeadline(time.Now().Add(deadline))
	for {
		n, from, err := back.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "ping" {
			if _, err := back.WriteToUDPAddrPort([]byte("pong"), from); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	select {
	case s := <-got:
		if s != "pong" {
			t.Errorf("got %q", s)
		}
	case <-time.After(deadline):
		t.Error("the socket is dead after refusals")
	}
}

// TestUnsendable holds E4: what cannot be sent is a soft error of its own and
// does not keep the rest of the batch.
func TestUnsendable(t *testing.T) {
	in, out := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	var soft []error
	w := batched(t, out, udpbatch.Options{SoftError: func(err error) { soft = append(soft, err) }})
	to := addrOf(in)
	v6 := netip.MustParseAddrPort("[::1]:9")
	bad := netip.MustParseAddr("203.0.113.1") // not ours
	ds := []udpbatch.Datagram{
		{Payload: []byte("a"), Peer: to},
		{Payload: make([]byte, udpbatch.MaxPayload+1), Peer: to},
		{Payload: []byte("b"), Peer: to},
		{Payload: []byte("x"), Peer: v6},
		{Payload: []byte("x"), Peer: netip.AddrPort{}},
		{Payload: []byte("c"), Peer: to},
		{Payload: []byte("x"), Peer: to, Local: bad},
		{Payload: []byte("x"), Peer: to, Local: bad},
		{Payload: []byte("d"), Peer: to},
	}
	n, err := w.WriteBatch(ds)
	if n != 4 || err != nil {
		t.Errorf("sent %d, %v; want 4", n, err)
	}
	if len(soft) < 4 {
		t.Errorf("soft errors: %v", soft)
	}
	r := batched(t, in, udpbatch.Options{})
	var got []byte
	for len(got) < 4 {
		if err := r.ReadBatch(func(ds []udpbatch.Datagram) {
			for _, d := range ds {
				got = append(got, d.Payload...)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != "abcd" {
		t.Errorf("got %q", got)
	}
	out.Close()
	if _, err := w.WriteBatch(ds); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestClose ends a waiting reader, also from within the soft error hook.
func TestClose(t *testing.T) {
	gone := listen(t, "udp4", "127.0.0.1:0")
	closed := addrOf(gone)
	gone.Close()
	raw := dial(t, closed)
	c := batched(t, raw, udpbatch.Options{Connected: true, SoftError: func(error) { raw.Close() }})
	done := make(chan error, 1)
	go func() { done <- c.ReadBatch(func([]udpbatch.Datagram) {}) }()
	if _, err := c.WriteBatch([]udpbatch.Datagram{{Payload: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadBatch: %v, want net.ErrClosed", err)
		}
	case <-time.After(deadline):
		t.Error("ReadBatch does not end")
	}
}
