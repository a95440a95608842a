package netstack

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/isolate"
)

// Small writes arrive, however many of them wait for the client and go in one
// packet.
func TestSmallWrites(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	for _, host := range p.hosts(t) {
		client, server := p.connect(t, host)
		const count = 10_000
		sent := make(chan error, 1)
		go func() {
			for i := range count {
				if _, err := server.Write([]byte{byte(i)}); err != nil {
					sent <- err
					return
				}
			}
			sent <- server.CloseWrite()
		}()
		got, err := io.ReadAll(client)
		if err != nil || len(got) != count {
			t.Fatalf("got %d of %d bytes, error %v", len(got), count, err)
		}
		for i, b := range got {
			if b != byte(i) {
				t.Fatalf("byte %d is %d", i, b)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// What a client does not read occupies little memory, whatever the writes were.
func TestSmallWritesWait(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	_, server := p.connect(t, p.Host4)
	before := heap()
	// Several times as long as it takes to fill the buffer.
	if err := server.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	sent := 0
	var err error
	for err == nil && sent < maxBufferSize {
		_, err = server.Write(one)
		sent++
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %d bytes: %v", sent, err)
	}
	grown := heap() - before
	t.Logf("%d bytes in writes of one, %d KiB of memory", sent, grown>>10)
	if grown > 32<<20 {
		t.Errorf("%d bytes that nobody reads occupy %d MiB", sent, grown>>20)
	}
	runtime.KeepAlive(server)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A flow that does nothing costs little memory.
func TestIdleFlows(t *testing.T) {
	if !isolate.InNetnsWithTUN(t) {
		return
	}
	p := newPairs(t)
	const count = 2000
	before, goroutines := heap(), runtime.NumGoroutine()
	one := make([]byte, 1)
	for range count {
		client, server := p.connect(t, p.Host4)
		if _, err := server.Write(one); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(one); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / count
	t.Logf("%d bytes for each of %d flows, client included, and %d goroutines in all", each, count, runtime.NumGoroutine()-goroutines)
	if each > 32<<10 {
		t.Errorf("an idle flow costs %d bytes", each)
	}
	if n := runtime.NumGoroutine() - goroutines; n > 100 {
		t.Errorf("%d goroutines for flows that do nothing", n)
	}
}
