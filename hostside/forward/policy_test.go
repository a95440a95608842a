package forward

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func TestPortRule(t *testing.T) {
	for _, s := range []string{"53", "22/tcp", "8000-8100/udp", "1-65535"} {
		r, err := ParsePortRule(s)
		if err != nil || r.String() != s {
			t.Errorf("%q: %q, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "0", "65536", "9-8", "22/sctp", "22/", "-1", "1-", "a", "1-2-3", "22/tcp/udp"} {
		if r, err := ParsePortRule(s); !errors.Is(err, ErrPortRule) {
			t.Errorf("%q: %q, %v; want ErrPortRule", s, r, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		p := DefaultPolicy(goos)
		if err := p.Validate(); err != nil || p.LocalhostTwin != (goos != "linux") {
			t.Errorf("%s: twin %v, %v", goos, p.LocalhostTwin, err)
		}
	}
	if (Policy{Exposure: "world"}).Validate() == nil || (Policy{Exposure: Mirror, IgnoreProcesses: []string{"["}}).Validate() == nil {
		t.Error("an invalid policy validates")
	}
}

// TestPolicyRules: what is not forwarded, and why (A7, H1).
func TestPolicyRules(t *testing.T) {
	p := DefaultPolicy("linux")
	p.DenyPorts = []PortRule{{First: 6000, Last: 6010}}
	p.ForwardPorts = []PortRule{{Protocol: message.UDP, First: 5353, Last: 5353}, {First: 40000, Last: 40000}, {First: 6001, Last: 6001}}
	for _, c := range []struct {
		listener string
		owner    message.Owner
		clients  bool
		want     State // "" for forwarded
		reason   string
	}{
		{listener: "tcp 0.0.0.0:22", want: Ignored, reason: "the settings ignore port 22/tcp"},
		{listener: "udp 0.0.0.0:22"},
		{listener: "udp 0.0.0.0:68", want: Ignored, reason: "the settings ignore port 68"},
		{listener: "udp 0.0.0.0:5353"},
		{listener: "tcp 0.0.0.0:5353", want: Ignored, reason: "the settings ignore port 5353"},
		{listener: "tcp 0.0.0.0:6001", want: Denied, reason: "the settings deny port 6000-6010"},
		{listener: "udp 0.0.0.0:40001", clients: true, want: Ignored, reason: "the kernel chose the UDP port: a client, unless a rule forwards it"},
		{listener: "udp 0.0.0.0:40000", clients: true},
		{listener: "tcp 0.0.0.0:2377", owner: message.Owner{Process: "dockerd"}, want: Ignored, reason: "the settings ignore the VM's own process dockerd"},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "systemd-resolve"}, want: Ignored, reason: "the settings ignore the VM's own process systemd-*"},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "dnsmasq", Container: "pihole"}},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "docker-proxy"}},
		{listener: "udp 224.0.0.251:80", want: Ignored, reason: "multicast and broadcast are not forwarded"},
		{listener: "udp 255.255.255.255:80", want: Ignored, reason: "multicast and broadcast are not forwarded"},
		{listener: "tcp [fe80::1]:80", want: Ignored, reason: "a link-local address of the VM"},
	} {
		l := listener(c.listener)
		l.Owner, l.Ephemeral = c.owner, c.clients
		got := p.plan(l)
		if got.state != c.want || got.reason != c.reason || (c.want == "") != (len(got.binds) > 0) {
			t.Errorf("%s %+v: %+v, want %q, %q", c.listener, c.owner, got, c.want, c.reason)
		}
	}
}

// FuzzPlan: no listener makes the host bind wider than the guest did (H1).
func FuzzPlan(f *testing.F) {
	f.Add("0.0.0.0", uint16(80), false, false, false)
	f.Add("::", uint16(80), true, true, true)
	f.Add("::1", uint16(68), false, true, false)
	f.Add("127.0.0.5", uint16(80), false, false, true)
	f.Add("fe80::1%eth0", uint16(80), false, false, false)
	f.Fuzz(func(t *testing.T, address string, port uint16, dual, twin, local bool) {
		a, err := netip.ParseAddr(address)
		if err != nil || a.Is4In6() || dual && a != wildcard6 {
			t.Skip()
		}
		p := DefaultPolicy("linux")
		p.LocalhostTwin = twin
		if local {
			p.Exposure = Loopback
		}
		for _, protocol := range []message.Protocol{message.TCP, message.UDP} {
			l := message.Listener{Key: message.Key{Protocol: protocol, Address: a, Port: port, DualStack: dual}}
			got := p.plan(l)
			if _, ignored := firstMatch(p.IgnorePorts, l.Key); ignored && len(got.binds) > 0 {
				t.Fatalf("%v is forwarded", l.Key)
			}
			for _, w := range got.binds {
				wild := w.host.IsUnspecified()
				if wild && (local || !a.IsUnspecified()) || local && !w.host.IsLoopback() ||
					wild && w.host.Is4() && a.Is6() && !dual ||
					!wild && !w.host.IsLoopback() && w.host != a ||
					w.host.IsLoopback() && !a.IsLoopback() && !a.IsUnspecified() ||
					w.guest.Port() != port || w.guest.Addr().IsUnspecified() {
					t.Fatalf("%v: host %v, guest %v", l.Key, w.host, w.guest)
				}
			}
		}
	})
}
