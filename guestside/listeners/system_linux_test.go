package listeners

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// TestNetcat holds A1 with a real program: it is reported under its name, and
// gone when it is killed.
func TestNetcat(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		for args, k := range map[string]message.Key{
			"-lk 127.0.0.1 6070":    tcpKey("127.0.0.1:6070"),
			"-luk 0.0.0.0 6071":     udpKey("0.0.0.0:6071"),
			"-6 -lk ::1 6072":       tcpKey("[::1]:6072"),
			"-4 -lk 127.1.2.3 6073": tcpKey("127.1.2.3:6073"),
		} {
			nc := exec.Command("nc", strings.Fields(args)...)
			if err := nc.Start(); err != nil {
				t.Skip("no netcat:", err)
			}
			l := o.has(k)
			if l.Owner.PID != nc.Process.Pid || l.Owner.Process != "nc" {
				t.Errorf("nc %s: owner %+v, want process %d", args, l.Owner, nc.Process.Pid)
			}
			nc.Process.Kill()
			nc.Wait()
			o.lacks(k)
		}
	})
}

// TestWithoutIPv6 holds A8 on a kernel that has IPv6 switched off: IPv4 works,
// and nothing is complained about. (Package sockdiag holds it for a kernel that
// lacks IPv6 altogether.)
func TestWithoutIPv6(t *testing.T) {
	const off = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
	if err := os.WriteFile(off, []byte("1"), 0); err != nil {
		t.Skip("IPv6 cannot be switched off:", err)
	}
	defer os.WriteFile(off, []byte("0"), 0)
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		p.listen("t", "tcp4", "0.0.0.0:6080")
		p.listen("u", "udp4", "127.0.0.1:6080")
		o.ownedBy(tcpKey("0.0.0.0:6080"), p)
		o.ownedBy(udpKey("127.0.0.1:6080"), p)
		for _, e := range o.logs.AllEntries() {
			if e.Level <= logrus.WarnLevel {
				t.Errorf("logged: %s %v", e.Message, e.Data)
			}
		}
	})
}

// TestDumpFails holds that a kernel that does not answer changes nothing of what
// is known, is mentioned once, and that there is no loop of errors.
func TestDumpFails(t *testing.T) {
	p := startProgram(t, nil)
	p.listen("t", "tcp4", "127.0.0.1:6090")
	o := observe(t, Config{Detect: Poll})
	k := tcpKey("127.0.0.1:6090")
	o.has(k)
	// The tracker's socket is taken away under it.
	tracker, err := New(Config{Detect: Poll, Logger: o.tracker.log})
	if err != nil {
		t.Fatal(err)
	}
	defer tracker.Close()
	tcp := tracker.tcp()
	tracker.look(t.Context(), tcp)
	w := tracker.Watch()
	defer w.Close()
	tracker.table.open()
	if l, err := w.Next(t.Context()); err != nil || len(l.Add) != 1 {
		t.Fatalf("got %+v, %v, want one listener", l, err)
	}
	tracker.conn.Close()
	for range 3 {
		tracker.look(t.Context(), tcp)
	}
	if got, ok := tracker.table.current[k]; !ok || got.Owner.PID != p.pid() {
		t.Errorf("after dumps that failed: %+v, %v", got, ok)
	}
	warnings := 0
	for _, e := range o.logs.AllEntries() {
		if e.Level == logrus.WarnLevel {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings, want 1", warnings)
	}
	if wait := time.Until(tcp.plan.next()); wait < followUp1/2 {
		t.Errorf("the next try is only %v away", wait)
	}
}
