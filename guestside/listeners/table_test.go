package listeners

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/vmbridge/vmbridge/guestside/sockdiag"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func listener(p message.Protocol, port int, process string) message.Listener {
	return message.Listener{
		Key:   message.Key{Protocol: p, Address: netip.MustParseAddr("127.0.0.1"), Port: uint16(port)},
		Owner: message.Owner{Process: process},
	}
}

// next gives the report that waits, which must be there.
func next(t *testing.T, w *Watch) message.Listeners {
	t.Helper()
	l, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestWatch holds that a watch begins with a snapshot and goes on with what
// changed, joined.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(100)
		a, b := listener(message.TCP, 1, "a"), listener(message.TCP, 2, "b")
		w := table.watch()
		defer w.Close()
		got := make(chan message.Listeners)
		go func() { got <- next(t, w) }()
		table.publish([]message.Listener{a}, nil)
		synctest.Wait()
		select {
		case l := <-got:
			t.Fatalf("a snapshot before it is complete: %+v", l)
		default:
		}
		table.open()
		if l, want := <-got, (message.Listeners{Reset: true, Add: []message.Listener{a}}); !reflect.DeepEqual(l, want) {
			t.Errorf("got %+v, want %+v", l, want)
		}

		// Nothing new is no report; several changes are one.
		table.publish([]message.Listener{a}, nil)
		table.publish([]message.Listener{b}, nil)
		table.publish(nil, []message.Key{b.Key})
		table.publish(nil, []message.Key{a.Key, b.Key})
		if l, want := next(t, w), (message.Listeners{Remove: []message.Key{a.Key}}); !reflect.DeepEqual(l, want) {
			t.Errorf("got %+v, want %+v", l, want)
		}
		table.publish([]message.Listener{a}, nil)
		next(t, w)
		changed := listener(message.TCP, 1, "other")
		table.publish([]message.Listener{changed}, nil)
		if l, want := next(t, w), (message.Listeners{Add: []message.Listener{changed}}); !reflect.DeepEqual(l, want) {
			t.Errorf("got %+v, want %+v", l, want)
		}

		// A later watch begins for itself.
		late := table.watch()
		defer late.Close()
		if l, want := next(t, late), (message.Listeners{Reset: true, Add: []message.Listener{changed}}); !reflect.DeepEqual(l, want) {
			t.Errorf("got %+v, want %+v", l, want)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(100)
		ended := make(chan error)
		wait := func(ctx context.Context, w *Watch) {
			_, err := w.Next(ctx)
			ended <- err
		}
		w := table.watch()
		go wait(t.Context(), w)
		synctest.Wait()
		w.Close()
		w.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v, want ErrClosed", err)
		}
		w = table.watch()
		ctx, cancel := context.WithCancel(t.Context())
		go wait(ctx, w)
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v, want context.Canceled", err)
		}
		go wait(t.Context(), w)
		synctest.Wait()
		table.close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("tracker ended: %v, want ErrClosed", err)
		}
		if _, err := table.watch().Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("a watch on a tracker that ended: %v, want ErrClosed", err)
		}
		w.Close()
	})
}

func TestTableLimit(t *testing.T) {
	table := newTable(2)
	table.open()
	w := table.watch()
	defer w.Close()
	var all []message.Listener
	for port := 1; port <= 4; port++ {
		all = append(all, listener(message.TCP, port, "a"))
	}
	if over := table.publish(all, nil); over != 2 {
		t.Errorf("%d are over the limit, want 2", over)
	}
	if l := next(t, w); len(l.Add) != 2 || l.Dropped != 2 {
		t.Errorf("got %+v, want two and two dropped", l)
	}
	// One that is over the limit goes; one in the table goes, and another moves up.
	table.publish(nil, []message.Key{all[3].Key})
	if l := next(t, w); len(l.Add)+len(l.Remove) != 0 || l.Dropped != 1 {
		t.Errorf("got %+v, want one dropped", l)
	}
	table.publish(nil, []message.Key{all[0].Key})
	l := next(t, w)
	if want := (message.Listeners{Add: all[2:3], Remove: []message.Key{all[0].Key}}); !reflect.DeepEqual(l, want) {
		t.Errorf("got %+v, want %+v", l, want)
	}
	// The same key goes and comes in one publication.
	table.publish([]message.Listener{all[1]}, []message.Key{all[1].Key})
	if l, want := next(t, w), (message.Listeners{Add: all[1:2]}); !reflect.DeepEqual(l, want) {
		t.Errorf("got %+v, want %+v", l, want)
	}
}

func TestKeyOf(t *testing.T) {
	ifname := func(index uint32) string { return fmt.Sprintf("eth%d", index) }
	for _, c := range []struct {
		local  string
		v6only bool
		want   string
	}{
		{"0.0.0.0:80", false, "tcp 0.0.0.0:80"},
		{"[::]:80", false, "tcp [::]:80 (dual-stack)"},
		{"[::]:80", true, "tcp [::]:80"},
		{"[::1]:80", false, "tcp [::1]:80"},
		{"[::ffff:127.0.0.1]:80", false, "tcp 127.0.0.1:80"},
		{"[::ffff:0.0.0.0]:80", false, "tcp 0.0.0.0:80"},
		{"[fe80::1]:80", false, "tcp [fe80::1%eth4]:80"},
	} {
		s := sockdiag.Socket{Local: netip.MustParseAddrPort(c.local), V6Only: c.v6only, Interface: 4}
		if got := keyOf(sockdiag.TCP, &s, ifname).String(); got != c.want {
			t.Errorf("%s (only %v): got %s, want %s", c.local, c.v6only, got, c.want)
		}
	}
}
