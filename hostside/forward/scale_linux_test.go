package forward

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/bind"
	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// residentBytes is what the kernel counts for this process.
func residentBytes(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// cpuTime is what this process has used: other than the clock on the wall it does
// not depend on who else uses the machine.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportMany sends n listeners of a protocol in messages of full size.
func reportMany(e *Engine, protocol message.Protocol, n int) {
	var m message.Listeners
	for port := range n {
		m.Add = append(m.Add, message.Listener{Key: message.Key{Protocol: protocol,
			Address: netip.IPv4Unspecified(), Port: uint16(10000 + port)}})
		if len(m.Add) == message.MaxListenersPerMessage || port == n-1 {
			e.ListenersChanged("a", m)
			m = message.Listeners{}
		}
	}
}

// TestTenThousand: 10,000 TCP and 10,000 UDP ports open within 2 s and 150 MB,
// answer, are told in a few lines, and go away (I4). Where the descriptors do
// not suffice for both at once they have their turns.
func TestTenThousand(t *testing.T) {
	if !isolate.InNetns(t) {
		return
	}
	const n = 10000
	turns := [][]message.Protocol{{message.TCP, message.UDP}}
	limit := syscall.Rlimit{Cur: 65536, Max: 65536}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil && bind.Descriptors() < 2*n*10/9+100 {
		t.Logf("%d descriptors: TCP and UDP one after the other", bind.Descriptors())
		turns = [][]message.Protocol{{message.TCP}, {message.UDP}}
	}
	for _, protocols := range turns {
		tenThousand(t, n, protocols)
	}
}

func tenThousand(t *testing.T, n int, protocols []message.Protocol) {
	r := realRig(t, nil)
	runtime.GC()
	debug.FreeOSMemory()
	goroutines, base := runtime.NumGoroutine(), residentBytes(t)
	for _, protocol := range protocols {
		before, start, cpu := residentBytes(t), time.Now(), cpuTime(t)
		reportMany(r.Engine, protocol, n)
		took := cpuTime(t) - cpu
		t.Logf("%d %s ports in %v, %v of CPU, %d bytes resident each", n, protocol, time.Since(start), took, (residentBytes(t)-before)/n)
		if took > 2*time.Second && !raceDetector {
			t.Errorf("%d %s ports took %v of CPU", n, protocol, took)
		}
	}
	wait.Until(t, 5*time.Second, "all are listed as open", func() bool {
		open := 0
		for _, f := range r.Forwards() {
			if f.State == Open {
				open++
			}
		}
		return open == n*len(protocols)
	})
	if cost := residentBytes(t) - base; cost > 150<<20 && !raceDetector {
		t.Errorf("they cost %d MiB", cost>>20)
	}
	for _, protocol := range protocols {
		for _, port := range []int{10000, 12345, 19999} {
			want := fmt.Sprintf("a 127.0.0.1:%d", port)
			if got := ask(string(protocol), fmt.Sprintf("127.0.0.1:%d", port)); got != want {
				t.Errorf("%s %d: %q, want %q", protocol, port, got, want)
			}
		}
	}

	start, cpu := time.Now(), cpuTime(t)
	r.Enable(false)
	took := cpuTime(t) - cpu
	t.Logf("closed all in %v, %v of CPU", time.Since(start), took)
	if took > 2*time.Second && !raceDetector {
		t.Errorf("closing took %v of CPU", took)
	}
	if got := ask(string(protocols[0]), "127.0.0.1:12345"); got != "refused" {
		t.Errorf("off: %q", got)
	}
	wait.Until(t, 5*time.Second, "goroutines return", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	wait.Until(t, 5*time.Second, "the end is logged", func() bool {
		return slices.ContainsFunc(r.log.AllEntries(), func(entry *logrus.Entry) bool { return entry.Message == "forward closed" })
	})
	if lines := r.lines(logrus.InfoLevel); len(lines) > 200 {
		t.Errorf("%d lines in the log", len(lines))
	}
}

// BenchmarkOpenClose is one listener's whole life on the host.
func BenchmarkOpenClose(b *testing.B) {
	for _, s := range []string{"tcp 127.0.0.1:9999", "udp 127.0.0.1:9999"} {
		b.Run(s[:3], func(b *testing.B) {
			logger := logrus.New()
			logger.SetLevel(logrus.PanicLevel)
			e := New(Config{Enabled: true, Log: logger})
			defer e.Close()
			e.SetLink("a", &answerer{name: "a"})
			l := listener(s)
			for b.Loop() {
				e.ListenersChanged("a", message.Listeners{Add: []message.Listener{l}})
				e.ListenersChanged("a", message.Listeners{Remove: []message.Key{l.Key}})
			}
		})
	}
}

// BenchmarkConflict is one attempt on a port that another process has.
func BenchmarkConflict(b *testing.B) {
	e := &Engine{}
	taken, err := e.openSocket(parseSlot("tcp 127.0.0.1:9998"), &route{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.wg.Wait()
	defer taken.close()
	for b.Loop() {
		if _, err := e.openSocket(parseSlot("tcp 127.0.0.1:9998"), &route{}); err == nil {
			b.Fatal("no conflict")
		}
	}
}
