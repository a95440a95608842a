package reach

import (
	"net"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// F2: a closed port is refused at once, on every system: some retry for 2 s unless
// told not to.
func TestRefusedAtOnce(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().String()
	l.Close()
	b := newBed(t, nil)
	var best time.Duration
	for range 5 {
		began := time.Now()
		if _, code := b.ask(t, to); code != wire.CodeRefused {
			t.Skipf("somebody else has the port: %d", code)
		}
		if took := time.Since(began); best == 0 || took < best {
			best = took
		}
		if got := b.tryUDP(t, to, "anybody?"); got != "connection refused" {
			t.Errorf("UDP: %q", got)
		}
	}
	if best > 100*time.Millisecond {
		t.Errorf("a refusal takes %v", best)
	}
}
