package listeners

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLatency measures the time from listen() to the report, and from close()
// to the report (A4), and logs them. What it asserts is that a report does not
// have to wait for the next periodic look, on a machine as busy as it may be.
func TestLatency(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		rounds, bound := 200, 500*time.Millisecond
		if mode == Poll {
			rounds, bound = 10, 2*time.Second
		}
		var up, down []time.Duration
		for range rounds {
			p.do("socket s inet stream")
			p.do("bind s 127.0.0.1:0")
			fields := strings.Fields(p.do("listen s"))
			k := tcpKey(netip.MustParseAddrPort(fields[0]).String())
			o.has(k)
			closed := p.do("close s")
			o.lacks(k)
			o.mu.Lock()
			up = append(up, o.seen[k]-parseTime(t, fields[1]))
			down = append(down, o.removed[k]-parseTime(t, closed))
			o.mu.Unlock()
		}
		t.Logf("listen to report: %s", distribution(up))
		t.Logf("close to report:  %s", distribution(down))
		for _, d := range [][]time.Duration{up, down} {
			if p95 := d[len(d)*95/100]; p95 > bound {
				t.Errorf("p95 is %v, want at most %v", p95, bound)
			}
		}
	})
}

func parseTime(t *testing.T, s string) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

// distribution sorts d and describes it.
func distribution(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("p50 %v p95 %v p99 %v max %v (%d)", d[len(d)/2], d[len(d)*95/100], d[len(d)*99/100], d[len(d)-1], len(d))
}
