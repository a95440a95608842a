package association_test

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/tests/linkpair"
	"github.com/vmbridge/vmbridge/tests/wait"
	"github.com/vmbridge/vmbridge/vmbridge/association"
	"github.com/vmbridge/vmbridge/vmbridge/link"
	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

const patience = 20 * time.Second

// end takes what it is sent.
type end struct{ linkpair.Nobody }

func (end) Datagrams(f *link.DatagramFlow) { f.Accept(func([][]byte) {}, func(wire.Code) {}) }

// bed is a table over a link, and the keys that have left it.
type bed struct {
	*association.Table[string]
	session *link.Session
	stats   link.Stats

	mu   sync.Mutex
	gone []string
}

func newBed(t *testing.T, limits association.Limits) *bed {
	b := &bed{session: linkpair.New(t, linkpair.Nobody{}, end{}, 1).Host}
	b.Table = association.New(limits, func(key string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.gone = append(b.gone, key)
	})
	t.Cleanup(b.Close)
	return b
}

func (b *bed) open(t *testing.T, key string) *association.Association[string] {
	t.Helper()
	nobody := netip.MustParseAddrPort("192.0.2.1:1")
	a, err := b.Open(key, func(a *association.Association[string]) (*link.DatagramFlow, error) {
		return b.session.OpenDatagrams(nobody, nobody, 0, &b.stats, func([][]byte) { a.Used() }, func(wire.Code) { a.Ended() })
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (b *bed) left() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.gone))
}

// At the limit the least recently used association goes (E3). Replies count as
// use.
func TestLimit(t *testing.T) {
	b := newBed(t, association.Limits{Associations: 3})
	first, second := b.open(t, "first"), b.open(t, "second")
	b.open(t, "third")
	if b.Get("first") != first {
		t.Fatal("an association is not found")
	}
	second.Used()
	b.open(t, "fourth")
	if got := b.left(); !slices.Equal(got, []string{"third"}) || b.Get("third") != nil {
		t.Errorf("gone: %q, want the third", got)
	}
	if n := b.stats.Flows.Load(); n != 3 {
		t.Errorf("%d flows", n)
	}
}

// An association that nobody uses ends, and one that replies use stays (E3).
func TestIdle(t *testing.T) {
	b := newBed(t, association.Limits{Idle: 100 * time.Millisecond})
	used := b.open(t, "used")
	b.open(t, "idle")
	wait.Until(t, patience, "the idle one to go", func() bool {
		used.Used()
		return slices.Equal(b.left(), []string{"idle"})
	})
	if b.Get("used") != used {
		t.Error("the other has gone, too")
	}
}

// The idle time follows a change, in both directions, for what is open.
func TestSetIdle(t *testing.T) {
	b := newBed(t, association.Limits{Idle: time.Hour})
	b.open(t, "first")
	b.SetIdle(50 * time.Millisecond)
	wait.Until(t, patience, "the first to go", func() bool { return slices.Equal(b.left(), []string{"first"}) })

	// The sweep of the short time comes, and finds that the time is long.
	second := b.open(t, "second")
	b.SetIdle(0)
	b.open(t, "third")
	for i := range 3 {
		b.SetIdle(time.Duration(i+1) * time.Hour)
	}
	opened := time.Now()
	wait.Until(t, patience, "the short time to pass", func() bool { return time.Since(opened) > 100*time.Millisecond })
	if got := b.left(); !slices.Equal(got, []string{"first"}) || b.Get("second") != second {
		t.Errorf("gone: %q", got)
	}
	b.SetIdle(50 * time.Millisecond)
	wait.Until(t, patience, "the others to go", func() bool { return len(b.left()) == 3 })
	b.Close()
	b.SetIdle(time.Millisecond)
}

// Where the link has no room for another flow, the least recently used association
// makes it, as long as there is one.
func TestFullLink(t *testing.T) {
	b := newBed(t, association.Limits{})
	b.session.SetLimits(2, 0)
	first := b.open(t, "first")
	b.open(t, "second")
	if b.Get("first") != first {
		t.Fatal("an association is not found")
	}
	b.open(t, "third")
	if got := b.left(); !slices.Equal(got, []string{"second"}) {
		t.Errorf("gone: %q, want the second", got)
	}
	if n := b.stats.Flows.Load(); n != 2 {
		t.Errorf("%d flows", n)
	}
	b.CloseKeys(func(string) bool { return true })

	nobody := netip.MustParseAddrPort("192.0.2.1:1")
	for range 2 {
		if _, err := b.session.AskStream(nobody, nobody, &b.stats, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.session.SetLimits(1, 0)
	_, err := b.Open("fourth", func(*association.Association[string]) (*link.DatagramFlow, error) {
		return b.session.OpenDatagrams(nobody, nobody, 0, &b.stats, nil, nil)
	})
	if !errors.Is(err, link.ErrTooManyFlows) {
		t.Errorf("without an association to end: %v", err)
	}
}

// A key that is opened again has the new flow, and the old one ends.
func TestAgain(t *testing.T) {
	b := newBed(t, association.Limits{})
	before := b.open(t, "key")
	now := b.open(t, "key")
	if !before.Flow.Closed() || now.Flow.Closed() || b.Get("key") != now {
		t.Errorf("old closed: %v, new closed: %v", before.Flow.Closed(), now.Flow.Closed())
	}
	before.Ended() // late, and no more its own
	if b.Get("key") != now {
		t.Error("the end of the old one took the new one along")
	}
}

// The end of the session ends all; keys end by choice; a closed table keeps
// nothing.
func TestEnds(t *testing.T) {
	b := newBed(t, association.Limits{})
	b.open(t, "a1")
	kept := b.open(t, "b1")
	b.CloseKeys(func(key string) bool { return key[0] == 'a' })
	if got := b.left(); !slices.Equal(got, []string{"a1"}) || kept.Flow.Closed() {
		t.Errorf("gone: %q", got)
	}
	b.Close()
	if late := b.open(t, "c1"); !late.Flow.Closed() || b.Get("c1") != nil {
		t.Error("a closed table has taken one more")
	}
	if got := b.left(); !slices.Equal(got, []string{"a1", "b1", "c1"}) {
		t.Errorf("gone: %q", got)
	}

	b = newBed(t, association.Limits{})
	b.open(t, "key")
	b.session.Close(wire.CodeShutdown, "")
	wait.Until(t, patience, "the association to go with the session", func() bool { return b.Get("key") == nil && len(b.left()) == 1 })
}
