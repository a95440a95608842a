package link

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/vmbridge/wire"
)

// What the peer opens on a connection that is closed already is nobody's: a
// handler that were told would wait for an end that never comes.
func TestOpenWhileClosing(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	r := &recorder{flows: map[uint32]*bytes.Buffer{}}
	s := newSession(Config{Handler: r, Log: log}.withDefaults(), true, [16]byte{}, 1, 1, "", initialCredit)
	c := newConn(s, newScriptConn(nil, nil))
	c.close(ErrClosed)
	there := netip.MustParseAddrPort("127.0.0.1:7000")
	for _, network := range []wire.Network{wire.TCP, wire.UDP} {
		frame := wire.AppendOpen(nil, 2, wire.Open{Network: network, Source: there, Destination: there})
		if _, err := c.parser.feed(frame); !errors.Is(err, ErrClosed) {
			t.Errorf("network %v: got %v", network, err)
		}
	}
	if len(r.events) > 0 || s.stats.Flows.Load() != 0 {
		t.Errorf("the handler was told %q, and %d flows are counted", r.events, s.stats.Flows.Load())
	}
}
