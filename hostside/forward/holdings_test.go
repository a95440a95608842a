package forward

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// holds lists those of some addresses that the engine holds: "tcp 127.0.0.1:80".
func (r *rig) holds(addresses ...string) []string {
	out := []string{}
	for _, a := range addresses {
		if s := parseSlot(a); r.Holds(s.protocol, s.at) {
			out = append(out, a)
		}
	}
	return out
}

var asked = []string{"tcp 127.0.0.1:80", "tcp 127.0.0.2:80", "tcp [::1]:80", "udp 127.0.0.1:80", "tcp 127.0.0.1:81"}

// F5: the engine knows which addresses lead to itself.
func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		for _, c := range []struct {
			listener string
			want     []string
		}{
			{"tcp 127.0.0.1:80", asked[:1]},
			{"tcp [::1]:80", asked[2:3]},
			{"tcp 0.0.0.0:80", asked[:2]},
			{"tcp [::]:80", asked[2:3]},
			{"tcp [::]:80 dual", asked[:3]},
			{"udp 0.0.0.0:80", asked[3:4]},
			{"tcp 192.0.2.1:80", nil},
		} {
			r.add("a", c.listener)
			equal(t, c.listener, r.holds(asked...), append([]string{}, c.want...))
			r.remove("a", c.listener)
			equal(t, "without "+c.listener, r.holds(asked...), []string{})
		}
		r.add("a", "tcp 0.0.0.0:80")
		mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), 80)
		if !r.Holds(message.TCP, mapped) {
			t.Errorf("%s is not held", mapped)
		}
		r.SetLink("a", nil)
		equal(t, "between sessions", r.holds(asked...), asked[:2])
		r.Enable(false)
		equal(t, "off", r.holds(asked...), []string{})
		r.Enable(true)
		r.LinkDown("a")
		equal(t, "link down", r.holds(asked...), []string{})
		r.host.set(func() { r.host.foreign["tcp 127.0.0.1:80"] = true })
		r.add("b", "tcp 127.0.0.1:80")
		equal(t, "a conflict", r.holds(asked...), []string{})
		r.add("b", "tcp [::]:80")
		r.Close()
		equal(t, "closed", r.holds(asked...), []string{})
	})
}

// Where a rule leads a port to another, the other one is held.
func TestHoldsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules(Rule{Protocol: message.TCP, First: 8000, Last: 8000, HostPort: 80},
			Rule{First: 80, Last: 80, HostPort: 9000}, Rule{First: 81, Last: 81, HostAddress: loopback6}))
		r.add("a", "tcp 127.0.0.1:8000", "udp 127.0.0.1:80", "tcp 127.0.0.1:81")
		equal(t, "held", r.holds(append(asked, "tcp 127.0.0.1:8000", "udp 127.0.0.1:9000", "tcp [::1]:81")...),
			[]string{"tcp 127.0.0.1:80", "udp 127.0.0.1:9000", "tcp [::1]:81"})
		r.set(Policy{})
		equal(t, "without rules", r.holds(append(asked, "tcp 127.0.0.1:8000", "udp 127.0.0.1:9000", "tcp [::1]:81")...),
			[]string{"udp 127.0.0.1:80", "tcp 127.0.0.1:81", "tcp 127.0.0.1:8000"})
	})
}

// A socket that lingers for its connections is ours still.
func TestHoldsLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.lingers = true })
		r.add("a", "tcp 0.0.0.0:80")
		busy := r.stats("tcp 0.0.0.0:80")
		busy.Flows.Add(1)
		r.remove("a", "tcp 0.0.0.0:80")
		equal(t, "lingering", r.holds(asked...), asked[:2])
		busy.Flows.Add(-1)
		time.Sleep(time.Second)
		equal(t, "over", r.holds(asked...), []string{})
	})
}

// Where a specific address can be had beside our wildcard, whoever has it gets what
// is sent there. The system is scanned once a second at most.
func TestHoldsUndercut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.undercuts = true })
		r.add("a", "tcp 0.0.0.0:80", "tcp 127.0.0.1:81")
		for _, c := range []struct {
			name  string
			owner portowner.Owner
			held  bool
		}{
			{"another process", portowner.Owner{Process: "nginx", PID: 1}, false},
			{"this process", portowner.Owner{PID: os.Getpid()}, true},
			{"hidden", portowner.Owner{Hidden: true}, true},
			{"nobody", portowner.Owner{}, true},
		} {
			finds := r.host.finds
			r.host.set(func() { r.host.owner = c.owner })
			for range 100 {
				if got := r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:80")); got != c.held {
					t.Fatalf("%s has the address: %t", c.name, got)
				}
				r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:81"))
				r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:82"))
			}
			if n := r.host.finds - finds; n != 1 {
				t.Errorf("%s: %d scans", c.name, n)
			}
			time.Sleep(rivalsFor)
		}
		for port := range uint16(2 * maxRivals) {
			r.holdings.rivals.present(t.Context(), holding{message.TCP, netip.AddrPortFrom(loopback4, port)}, r.host.find)
		}
		if n := len(r.holdings.rivals.known); n > maxRivals {
			t.Errorf("%d answers are kept", n)
		}
		broken := func(context.Context, []portowner.Port) ([]portowner.Owner, error) {
			return nil, errors.New("broken")
		}
		if r.holdings.rivals.present(t.Context(), holding{message.UDP, netip.AddrPortFrom(loopback4, 1)}, broken) {
			t.Error("a scan that failed has found somebody")
		}
	})
}

// Whoever asks while ports open waits for one of them, not for all, and gets an
// answer that is true.
func TestHoldsMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	started, release := make(chan struct{}), make(chan struct{})
	open := r.cfg.open
	var once sync.Once
	r.change(func() {
		r.cfg.open = func(s slot, to *route) (hostSocket, error) {
			if s.at.Port() == 82 {
				once.Do(func() { close(started); <-release })
			}
			return open(s, to)
		}
	})
	r.add("a", "tcp 127.0.0.1:80")
	var work sync.WaitGroup
	work.Go(func() { r.add("a", "tcp 127.0.0.1:81", "tcp 127.0.0.1:82", "tcp 127.0.0.1:83") })
	<-started
	answers := make(chan bool, 1)
	work.Go(func() { answers <- r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:82")) })
	close(release)
	if !<-answers {
		t.Error("an address that was being opened is not held")
	}
	work.Wait()

	stop := make(chan struct{})
	for range 2 {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:80")) {
					t.Error("a socket that stays open is not held")
					return
				}
				r.Holds(message.TCP, netip.MustParseAddrPort("127.0.0.1:90"))
			}
		})
	}
	for range 500 {
		r.add("a", "tcp 127.0.0.1:90", "tcp 0.0.0.0:91")
		if got := r.holds("tcp 127.0.0.1:90", "tcp 127.0.0.1:91"); !slices.Equal(got, []string{"tcp 127.0.0.1:90", "tcp 127.0.0.1:91"}) {
			t.Fatalf("open: %v", got)
		}
		r.remove("a", "tcp 127.0.0.1:90", "tcp 0.0.0.0:91")
		if got := r.holds("tcp 127.0.0.1:90", "tcp 127.0.0.1:91"); len(got) > 0 {
			t.Fatalf("closed: %v", got)
		}
	}
	close(stop)
	work.Wait()
}
