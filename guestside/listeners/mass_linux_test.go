package listeners

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

const (
	massCount   = 10000
	massTCPPort = 1024 // outside of ip_local_port_range, from 32768 on
	massUDPPort = 12000
	// massBound is what the last report may take, on a machine that runs other
	// tests at the same time. A quiet one takes a twentieth of it.
	massBound = 10 * time.Second
)

// count gives the number of known listeners of a protocol. The caller holds the
// lock.
func (o *observer) count(p message.Protocol) (n int) {
	for k := range o.known {
		if k.Protocol == p {
			n++
		}
	}
	return n
}

// TestMass holds the guest's part of I4: 10,000 TCP and 10,000 UDP ports that
// open at once, all reported, with their owner, and all gone again.
func TestMass(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		tcp, udp := startProgram(t, nil), startProgram(t, nil)
		began := monotonic()
		opened := parseTime(t, tcp.do("many t tcp %d %d", massCount, massTCPPort))
		o.wait("all TCP listeners", func() bool { return o.count(message.TCP) == massCount })
		t.Logf("%d TCP: opened in %v, last report %v later", massCount, opened-began, o.last()-opened)
		if late := o.last() - opened; late > massBound {
			t.Errorf("the last TCP listener was reported %v after it opened", late)
		}
		began = monotonic()
		opened = parseTime(t, udp.do("many u udp %d %d", massCount, massUDPPort))
		o.wait("all UDP listeners", func() bool { return o.count(message.UDP) == massCount })
		t.Logf("%d UDP: opened in %v, last report %v later", massCount, opened-began, o.last()-opened)
		if late := o.last() - opened; late > massBound {
			t.Errorf("the last UDP listener was reported %v after it opened", late)
		}
		o.wait("all owners", func() bool {
			for k, l := range o.known {
				if k.Protocol == message.TCP && l.Owner.PID != tcp.pid() || k.Protocol == message.UDP && l.Owner.PID != udp.pid() {
					return false
				}
			}
			return true
		})

		closed := parseTime(t, tcp.do("closemany t"))
		o.wait("no TCP listeners", func() bool { return o.count(message.TCP) == 0 })
		t.Logf("TCP closed, last report %v later", o.lastRemoved()-closed)
		closed = parseTime(t, udp.do("closemany u"))
		o.wait("no UDP listeners", func() bool { return o.count(message.UDP) == 0 })
		t.Logf("UDP closed, last report %v later", o.lastRemoved()-closed)
	})
}

// last gives when the newest listener was added.
func (o *observer) last() (latest time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.seen {
		latest = max(latest, at)
	}
	return latest
}

func (o *observer) lastRemoved() (latest time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.removed {
		latest = max(latest, at)
	}
	return latest
}

// TestClients holds A6: 20,000 UDP clients are not reported, and cost little.
func TestClients(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode})
		p := startProgram(t, nil)
		before, began := cpuTime(t), monotonic()
		p.do("clients 20000")
		t.Logf("20,000 clients in %v cost the tracker %v", monotonic()-began, cpuTime(t)-before)
		p.listen("mark", "udp4", "127.0.0.1:6060")
		o.has(udpKey("127.0.0.1:6060"))
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.history) != 1 {
			t.Errorf("%d listeners were reported, want 1", len(o.history))
		}
	})
}

// TestLimit holds the guest's part of H2: beyond the limit listeners are
// counted, and move up when others go.
func TestLimit(t *testing.T) {
	o := observe(t, Config{Limit: 10})
	p := startProgram(t, nil)
	p.do("many a tcp 10 2000")
	o.wait("ten listeners", func() bool { return len(o.known) == 10 })
	p.do("many b tcp 5 3000")
	o.wait("five are dropped", func() bool { return o.batches[len(o.batches)-1].Dropped == 5 })
	p.do("many u udp 3 2000")
	o.wait("UDP has a limit of its own", func() bool { return len(o.known) == 13 })
	p.do("closemany a")
	o.wait("the others move up", func() bool {
		return len(o.known) == 8 && o.batches[len(o.batches)-1].Dropped == 0
	})
}

// TestEphemeral holds the option to report what the kernel chose (A2).
func TestEphemeral(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		o := observe(t, Config{Detect: mode, Ephemeral: true})
		p := startProgram(t, nil)
		k := udpKey(p.listen("s", "udp4", "127.0.0.1:0").String())
		if l := o.has(k); !l.Ephemeral {
			t.Errorf("%+v is not marked as ephemeral", l)
		}
		p.do("close s")
		o.lacks(k)
	})
}

// cpuTime is what this process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
