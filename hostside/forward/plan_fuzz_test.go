package forward

import (
	"net/netip"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// FuzzPlan: no listener makes the host bind wider than the guest did, but where
// the rule that matches names an address; and none a port that is denied (H1).
func FuzzPlan(f *testing.F) {
	f.Add("0.0.0.0", uint16(80), uint8(0), "", "", "", "", uint16(0), uint16(0), uint16(0), "")
	f.Add("::", uint16(80), uint8(7), "0.0.0.0", "web", "nginx", "proc", uint16(80), uint16(90), uint16(22), "")
	f.Add("::1", uint16(68), uint8(2), "", "", "", "", uint16(60), uint16(70), uint16(65525), "192.0.2.1")
	f.Add("127.0.0.5", uint16(80), uint8(12), "127.0.0.5", "*", "", "", uint16(1), uint16(65535), uint16(1), "::")
	f.Add("fe80::1%eth0", uint16(80), uint8(48), "", "", "", "x", uint16(0), uint16(0), uint16(0), "0.0.0.0")
	f.Fuzz(func(t *testing.T, address string, port uint16, flags uint8, guestAddress, container, image, process string,
		first, last, hostPort uint16, hostAddress string) {
		flag := func(bit int) bool { return flags>>bit&1 == 1 }
		a, err := netip.ParseAddr(address)
		dual := flag(0) && a == wildcard6
		if err != nil || a.Is4In6() || port == 0 {
			return
		}
		rule := Rule{Name: "r", Container: container, Image: image, Process: process, First: first, Last: last, HostPort: hostPort, Ignore: flag(4)}
		rule.GuestAddress, _ = netip.ParseAddr(guestAddress)
		rule.HostAddress, _ = netip.ParseAddr(hostAddress)
		local := flag(2)
		p := Policy{
			LocalhostTwin: flag(1), Rules: []Rule{rule},
			DenyPorts: ports("20-30 6000/udp"), IgnorePorts: ports("68"), IgnoreProcesses: []string{"dockerd"},
		}
		if local {
			p.Exposure = Loopback
		}
		if flag(3) {
			p.AllowPorts = ports("1-1023 8000-9000/tcp 65535")
		}
		if p.Validate() != nil {
			return // such a policy never gets here
		}
		for _, protocol := range []message.Protocol{message.TCP, message.UDP} {
			l := message.Listener{Key: message.Key{Protocol: protocol, Address: a, Port: port, DualStack: dual}, Ephemeral: flag(5) && protocol == message.UDP}
			if flag(6) {
				l.Owner = message.Owner{Process: "proc", Container: "web", Image: "nginx:1"}
			}
			matched, _ := rule.matches(l)
			got := p.plan(l)
			if (len(got.binds) == 0) == (got.state == "") || got.state != "" && got.reason == "" {
				t.Fatalf("%v: %+v", l.Key, got)
			}
			if ignored := (l.Ephemeral || port == 68) && matched == no || matched == yes && rule.Ignore; ignored && len(got.binds) > 0 {
				t.Fatalf("%v is forwarded", l.Key)
			}
			named := matched == yes && rule.HostAddress.IsValid()
			for _, w := range got.binds {
				host := w.host.Addr()
				wild := host.IsUnspecified()
				if _, denied := firstMatch(p.DenyPorts, protocol, w.host.Port()); denied || w.host.Port() == 0 {
					t.Fatalf("%v opens port %d", l.Key, w.host.Port())
				}
				if _, denied := firstMatch(p.DenyPorts, protocol, port); denied {
					t.Fatalf("%v is denied", l.Key)
				}
				if _, allowed := firstMatch(p.AllowPorts, protocol, w.host.Port()); !allowed && p.AllowPorts != nil {
					t.Fatalf("%v opens port %d, which is not allowed", l.Key, w.host.Port())
				}
				if local && !host.IsLoopback() || w.guest.Port() != port || w.guest.Addr().IsUnspecified() ||
					matched != yes && w.host.Port() != port {
					t.Fatalf("%v: host %v, guest %v", l.Key, w.host, w.guest)
				}
				if named {
					continue
				}
				if wild && !a.IsUnspecified() || wild && host.Is4() && a.Is6() && !dual ||
					!wild && !host.IsLoopback() && host != a ||
					host.IsLoopback() && !a.IsLoopback() && !a.IsUnspecified() {
					t.Fatalf("%v: host %v, guest %v", l.Key, w.host, w.guest)
				}
			}
		}
	})
}
