package daemon

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/hostside/forward"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// G2: a forwarding policy that cannot be used closes everything. The one before may
// allow what the new one is there to forbid.
func TestUnusablePolicyClosesEverything(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	good := Settings{HostNetworking: control.On}
	bad := good
	bad.Policy.Rules = []forward.Rule{{Name: "ports.rules[0]", HostAddress: netip.MustParseAddr("224.0.0.1")}}
	port := freePort(t)
	for _, first := range []Settings{good, bad} {
		d := New(Config{Settings: first, Logger: log})
		d.engine.SetLink("vm", nil)
		d.engine.ListenersChanged("vm", message.Listeners{Add: []message.Listener{{
			Key: message.Key{Protocol: message.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: port},
		}}})
		for _, next := range []Settings{first, bad, good, bad} {
			d.Apply(next)
			want, state := control.On, forward.Open
			if len(next.Policy.Rules) > 0 {
				want, state = control.Blocked, forward.Denied
			}
			if now := d.current(); now.HostNetworking != want || (now.Reason != "") != (want == control.Blocked) {
				t.Errorf("host networking is %s (%s), want %s", now.HostNetworking, now.Reason, want)
			}
			if all := d.engine.ForwardsOf(port); len(all) != 1 || all[0].State != state {
				t.Errorf("%s: forwards are %+v, want one that is %s", want, all, state)
			}
		}
		d.engine.Close()
		d.reach.Close()
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}
