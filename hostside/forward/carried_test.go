package forward

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/portowner"
	"github.com/vmbridge/vmbridge/hostside/product"
)

// lima has every foreign port of a rig held by Lima's forwarder, which is that of
// link a's VM while it says so.
func lima(ofA *atomic.Bool) func(*Config) {
	vm := product.VM{Product: product.Lima, Name: "dev"}
	return func(c *Config) {
		c.judge = func(_ context.Context, _ map[string]product.VM, held []product.Held) []product.Verdict {
			verdicts := make([]product.Verdict, len(held))
			for i, h := range held {
				verdicts[i] = product.Verdict{Known: true, By: vm, Carried: h.Link == "a" && ofA.Load()}
				if !verdicts[i].Carried {
					verdicts[i].Note = "another VM than the link's"
				}
			}
			return verdicts
		}
	}
}

// scans counts the look-ups of owners.
func (r *rig) scans() (n int) {
	r.host.set(func() { n = r.host.finds })
	return n
}

// A port that the VM's own product has is carried, and no conflict: not in listings,
// events nor the log. It opens when the product lets go.
func TestCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ofA atomic.Bool
		ofA.Store(true)
		r := newRig(t, lima(&ofA))
		r.host.set(func() { r.host.foreign["tcp 127.0.0.1:80"] = true })
		r.add("a", "tcp [::]:80 dual")
		if got := r.Forwards(); len(got) > 0 {
			t.Errorf("listed before its owner is known: %v", states(got))
		}
		time.Sleep(time.Second)
		equal(t, "listed", states(r.Forwards()), []string{"a tcp [::]:80 (dual-stack) carried [0.0.0.0 carried :: open]"})
		f := r.Forwards()[0]
		for _, part := range []string{`tcp 0.0.0.0:80 is carried by Lima "dev", nginx (pid 7); `, "portForwards"} {
			if !strings.Contains(f.Reason, part) {
				t.Errorf("the reason %q lacks %q", f.Reason, part)
			}
		}
		if by := f.Host[0].By; by != (product.VM{Product: product.Lima, Name: "dev"}) || f.Host[1].By != (product.VM{}) {
			t.Errorf("by %v", by)
		}
		r.host.set(func() { clear(r.host.foreign) })
		time.Sleep(2 * time.Second)
		equal(t, "listed", states(r.Forwards()), []string{"a tcp [::]:80 (dual-stack) open [0.0.0.0 open :: open]"})
		equal(t, "warnings", r.lines(logrus.WarnLevel), []string{})
		equal(t, "log", r.lines(logrus.InfoLevel), []string{
			"the VM's own product carries ports; they open here when it lets go",
			"forward open: its product has let go of the port"})
	})
}

// What another VM's product has is a conflict, and stays one.
func TestCarriedForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ofA atomic.Bool
		ofA.Store(true)
		r := newRig(t, lima(&ofA))
		r.host.set(func() { r.host.foreign["tcp 127.0.0.1:80"] = true })
		r.add("b", "tcp 127.0.0.1:80")
		time.Sleep(time.Second)
		equal(t, "listed", states(r.Forwards()), []string{"b tcp 127.0.0.1:80 conflict [127.0.0.1 conflict]"})
		const reason = `tcp 127.0.0.1:80 is in use by nginx (pid 7), the forwarder of Lima "dev" (another VM than the link's)`
		equal(t, "warnings", r.lines(logrus.WarnLevel), []string{"port conflict: " + reason})
	})
}

// A product that has given its port to somebody else between two tries does not hide
// the conflict for ever, nor does a link that comes later and says where it leads.
func TestCarriedIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ofA atomic.Bool
		r := newRig(t, lima(&ofA))
		r.host.set(func() { r.host.foreign["tcp 127.0.0.1:80"] = true })
		r.add("a", "tcp 127.0.0.1:80")
		for _, state := range []State{Conflict, Carried, Conflict} {
			ofA.Store(state == Carried)
			time.Sleep(lookAgain + 5*time.Second)
			if got := r.Forwards()[0].State; got != state {
				t.Errorf("%s, want %s", got, state)
			}
		}
		before := r.scans()
		time.Sleep(10 * lookAgain)
		if n := r.scans() - before; n > 10 {
			t.Errorf("%d scans in %v", n, 10*lookAgain)
		}
	})
}

// Hundreds of ports that are carried are one scan and one line.
func TestManyCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ofA atomic.Bool
		ofA.Store(true)
		r := newRig(t, lima(&ofA))
		var listeners []string
		r.host.set(func() {
			for port := range uint16(200) {
				at := netip.AddrPortFrom(loopback4, 8000+port)
				r.host.foreign["tcp "+at.String()] = true
				listeners = append(listeners, "tcp "+at.String())
			}
		})
		r.add("a", listeners[:100]...)
		time.Sleep(time.Second)
		r.add("a", listeners[100:]...)
		time.Sleep(time.Second)
		if n := len(r.lines(logrus.InfoLevel)); n != 1 {
			t.Errorf("%d lines: %v", n, r.lines(logrus.InfoLevel))
		}
		if n := r.scans(); n > 3 {
			t.Errorf("%d scans", n)
		}
		for _, f := range r.Forwards() {
			if f.State != Carried {
				t.Fatal(states([]Forward{f}))
			}
		}
	})
}

// Without a switch the reason says so.
func TestCarriedReason(t *testing.T) {
	if got := letGo(product.VM{Product: product.OrbStack}); !strings.HasPrefix(got, "it has no switch") {
		t.Error(got)
	}
	if got := fmt.Sprint(portowner.Owner{}, note(product.Verdict{Note: "x"})); got != "an unknown process (x)" {
		t.Error(got)
	}
}
