package forward

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// usual is a policy with the lists that most people have.
func usual() Policy {
	return Policy{
		IgnorePorts:     ports("22/tcp 53 68 5353"),
		IgnoreProcesses: []string{"dockerd", "sshd", "systemd-*", "dnsmasq"},
	}
}

// words says what became of a listener: "127.0.0.1:80 -> 127.0.0.1:80", or state
// and reason.
func (p plan) words() string {
	var out []string
	for _, w := range p.binds {
		s := fmt.Sprintf("%s -> %s", w.host, w.guest)
		if w.alias {
			s += " alias"
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		out = append(out, fmt.Sprintf("%s: %s", p.state, p.reason))
	}
	return strings.Join(out, ", ")
}

// TestPolicyLists: what is not forwarded without any rule, and why (A7, H1).
func TestPolicyLists(t *testing.T) {
	p := usual()
	p.DenyPorts = ports("6000-6010 1-10/udp")
	for _, c := range []struct {
		listener string
		owner    message.Owner
		clients  bool
		want     string // "" for forwarded
	}{
		{listener: "tcp 0.0.0.0:22", want: "ignored: the settings ignore port 22/tcp"},
		{listener: "udp 0.0.0.0:22"},
		{listener: "udp 0.0.0.0:68", want: "ignored: the settings ignore port 68"},
		{listener: "tcp 0.0.0.0:5353", want: "ignored: the settings ignore port 5353"},
		{listener: "tcp 0.0.0.0:6000", want: "denied: the settings deny port 6000-6010"},
		{listener: "tcp 0.0.0.0:6010", want: "denied: the settings deny port 6000-6010"},
		{listener: "tcp 0.0.0.0:6011"},
		{listener: "tcp 0.0.0.0:5999"},
		{listener: "udp 0.0.0.0:1", want: "denied: the settings deny port 1-10/udp"},
		{listener: "tcp 0.0.0.0:1"},
		{listener: "udp 0.0.0.0:40001", clients: true, want: "ignored: the kernel chose the UDP port: a client, unless a rule forwards it"},
		{listener: "udp 0.0.0.0:6001", clients: true, want: "denied: the settings deny port 6000-6010"},
		{listener: "tcp 0.0.0.0:2377", owner: message.Owner{Process: "dockerd"}, want: "ignored: the settings ignore the VM's own process dockerd"},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "systemd-resolve"}, want: "ignored: the settings ignore the VM's own process systemd-*"},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "dnsmasq", Container: "pihole"}},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "dnsmasq", ContainerID: "0123"}},
		{listener: "tcp 0.0.0.0:80", owner: message.Owner{Process: "docker-proxy"}},
		{listener: "udp 224.0.0.251:80", want: "ignored: multicast and broadcast are not forwarded"},
		{listener: "udp 255.255.255.255:80", want: "ignored: multicast and broadcast are not forwarded"},
		{listener: "tcp [fe80::1]:80", want: "ignored: a link-local address of the VM"},
	} {
		l := listener(c.listener)
		l.Owner, l.Ephemeral = c.owner, c.clients
		got := p.plan(l)
		if w := got.words(); w != c.want && (c.want != "" || got.state != "") || got.hidden != c.clients {
			t.Errorf("%s %+v: %s, hidden %t, want %q", c.listener, c.owner, w, got.hidden, c.want)
		}
	}
	zero := Policy{}
	for _, s := range []string{"tcp 0.0.0.0:22", "udp 0.0.0.0:68", "tcp 0.0.0.0:6000"} {
		if got := zero.plan(listener(s)); len(got.binds) == 0 {
			t.Errorf("%s without a policy: %s", s, got.words())
		}
	}
}

// TestAllowPorts: nil is every port of this machine, empty is none.
func TestAllowPorts(t *testing.T) {
	const refused = "denied: the settings allow other ports only"
	for _, c := range []struct {
		allow []PortRule
		want  map[string]string
	}{
		{nil, map[string]string{"tcp 127.0.0.1:1": "127.0.0.1:1 -> 127.0.0.1:1", "udp 127.0.0.1:65535": "127.0.0.1:65535 -> 127.0.0.1:65535"}},
		{[]PortRule{}, map[string]string{"tcp 127.0.0.1:1": refused, "udp 127.0.0.1:65535": refused}},
		{ports("80 8000-8999/tcp"), map[string]string{
			"tcp 127.0.0.1:80": "127.0.0.1:80 -> 127.0.0.1:80", "udp 127.0.0.1:80": "127.0.0.1:80 -> 127.0.0.1:80",
			"tcp 127.0.0.1:8000": "127.0.0.1:8000 -> 127.0.0.1:8000", "tcp 127.0.0.1:8999": "127.0.0.1:8999 -> 127.0.0.1:8999",
			"tcp 127.0.0.1:9000": refused, "udp 127.0.0.1:8000": refused, "tcp 127.0.0.1:79": refused}},
	} {
		p := Policy{AllowPorts: c.allow}
		for s, want := range c.want {
			if got := p.plan(listener(s)).words(); got != want {
				t.Errorf("%v, %s: %s, want %s", c.allow, s, got, want)
			}
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestRules: every criterion, every outcome, and their order.
func TestRules(t *testing.T) {
	web := message.Owner{Container: "web-1", ContainerID: "0123", Image: "docker.io/library/nginx:1.27", Process: "nginx", PID: 7}
	shell := message.Owner{Process: "python3", PID: 9}
	const same = "127.0.0.1:80 -> 127.0.0.1:80"
	const out = "ignored: ignored by r"
	ignoring := func(r Rule) []Rule { r.Name, r.Ignore = "r", true; return []Rule{r} }
	to := func(r Rule) []Rule { r.Name = "r"; return []Rule{r} }
	for _, c := range []struct {
		name     string
		policy   Policy
		listener string
		owner    message.Owner
		clients  bool
		want     string
	}{
		{"no criterion", Policy{Rules: ignoring(Rule{})}, "tcp 127.0.0.1:80", web, false, out},
		{"protocol", Policy{Rules: ignoring(Rule{Protocol: message.TCP})}, "tcp 127.0.0.1:80", web, false, out},
		{"another protocol", Policy{Rules: ignoring(Rule{Protocol: message.UDP})}, "tcp 127.0.0.1:80", web, false, same},
		{"address", Policy{Rules: ignoring(Rule{GuestAddress: loopback4})}, "tcp 127.0.0.1:80", web, false, out},
		{"another address", Policy{Rules: ignoring(Rule{GuestAddress: wildcard4})}, "tcp 127.0.0.1:80", web, false, same},
		{"another family", Policy{Rules: ignoring(Rule{GuestAddress: loopback6})}, "tcp 127.0.0.1:80", web, false, same},
		{"IPv6 address", Policy{Rules: ignoring(Rule{GuestAddress: addr("2001:db8::1")})}, "tcp [2001:db8::1]:80", web, false, out},
		{"dual stack is :: and 0.0.0.0", Policy{Rules: ignoring(Rule{GuestAddress: wildcard4})}, "tcp [::]:80 dual", web, false, out},
		{"dual stack is ::", Policy{Rules: ignoring(Rule{GuestAddress: wildcard6})}, "tcp [::]:80 dual", web, false, out},
		{"without dual stack it is not", Policy{Rules: ignoring(Rule{GuestAddress: wildcard4})}, "tcp [::]:80", web, false, "[::]:80 -> [::1]:80"},
		{"first port", Policy{Rules: ignoring(Rule{First: 80, Last: 90})}, "tcp 127.0.0.1:80", web, false, out},
		{"last port", Policy{Rules: ignoring(Rule{First: 70, Last: 80})}, "tcp 127.0.0.1:80", web, false, out},
		{"below", Policy{Rules: ignoring(Rule{First: 81, Last: 90})}, "tcp 127.0.0.1:80", web, false, same},
		{"above", Policy{Rules: ignoring(Rule{First: 70, Last: 79})}, "tcp 127.0.0.1:80", web, false, same},
		{"port 65535", Policy{Rules: ignoring(Rule{First: 65535, Last: 65535})}, "tcp 127.0.0.1:65535", web, false, out},
		{"container", Policy{Rules: ignoring(Rule{Container: "web-*"})}, "tcp 127.0.0.1:80", web, false, out},
		{"another container", Policy{Rules: ignoring(Rule{Container: "db"})}, "tcp 127.0.0.1:80", web, false, same},
		{"outside containers", Policy{Rules: ignoring(Rule{Container: "*"})}, "tcp 127.0.0.1:80", shell, false, same},
		{"image", Policy{Rules: ignoring(Rule{Image: "nginx"})}, "tcp 127.0.0.1:80", web, false, out},
		{"another image", Policy{Rules: ignoring(Rule{Image: "nginx:1.26"})}, "tcp 127.0.0.1:80", web, false, same},
		{"a container without image", Policy{Rules: ignoring(Rule{Image: "*"})}, "tcp 127.0.0.1:80", message.Owner{Container: "x", Process: "y"}, false, same},
		{"process", Policy{Rules: ignoring(Rule{Process: "python*"})}, "tcp 127.0.0.1:80", shell, false, out},
		{"process in a container", Policy{Rules: ignoring(Rule{Process: "nginx"})}, "tcp 127.0.0.1:80", web, false, out},
		{"another process", Policy{Rules: ignoring(Rule{Process: "nginx"})}, "tcp 127.0.0.1:80", shell, false, same},
		{"all of them", Policy{Rules: ignoring(Rule{Container: "web-1", Image: "nginx", Process: "nginx", First: 80, Last: 80, Protocol: message.TCP,
			GuestAddress: loopback4})}, "tcp 127.0.0.1:80", web, false, out},
		{"all but one", Policy{Rules: ignoring(Rule{Container: "web-1", Image: "nginx", Process: "apache"})}, "tcp 127.0.0.1:80", web, false, same},

		{"the first decides", Policy{Rules: []Rule{{Name: "a", First: 80, Last: 80}, {Name: "b", Ignore: true}}}, "tcp 127.0.0.1:80", web, false, same},
		{"the second, for others", Policy{Rules: []Rule{{Name: "a", First: 80, Last: 80}, {Name: "b", Ignore: true}}}, "tcp 127.0.0.1:81", web, false, "ignored: ignored by b"},
		{"a rule forwards what is ignored", Policy{Rules: to(Rule{First: 22, Last: 22}), IgnorePorts: ports("22")}, "tcp 127.0.0.1:22", web, false, "127.0.0.1:22 -> 127.0.0.1:22"},
		{"and the VM's own processes", Policy{Rules: to(Rule{Process: "python3"}), IgnoreProcesses: []string{"python3"}}, "tcp 127.0.0.1:80", shell, false, same},
		{"and UDP clients", Policy{Rules: to(Rule{First: 40000, Last: 50000})}, "udp 0.0.0.0:45678", web, true, "0.0.0.0:45678 -> 127.0.0.1:45678"},
		{"or ignores them", Policy{Rules: ignoring(Rule{First: 40000, Last: 50000})}, "udp 0.0.0.0:45678", web, true, out},
		{"no rule forwards what is denied", Policy{Rules: to(Rule{First: 22, Last: 22, HostPort: 2222}), DenyPorts: ports("22")},
			"tcp 127.0.0.1:22", web, false, "denied: the settings deny port 22"},
		{"nor to what is denied", Policy{Rules: to(Rule{First: 80, Last: 80, HostPort: 22}), DenyPorts: ports("22")},
			"tcp 127.0.0.1:80", web, false, "denied: r leads to port 22, and the settings deny port 22"},
		{"nor to what is not allowed", Policy{Rules: to(Rule{First: 80, Last: 80, HostPort: 8080}), AllowPorts: ports("80")},
			"tcp 127.0.0.1:80", web, false, "denied: r leads to port 8080, and the settings allow other ports only"},
		{"but away from it", Policy{Rules: to(Rule{First: 80, Last: 80, HostPort: 8080}), AllowPorts: ports("8080")},
			"tcp 127.0.0.1:80", web, false, "127.0.0.1:8080 -> 127.0.0.1:80"},
		{"nothing forwards multicast", Policy{Rules: to(Rule{HostAddress: loopback4})}, "udp 224.0.0.1:80", web, false, "ignored: multicast and broadcast are not forwarded"},

		{"a range moves", Policy{Rules: to(Rule{First: 1000, Last: 2000, HostPort: 5000})}, "tcp 127.0.0.1:1500", web, false, "127.0.0.1:5500 -> 127.0.0.1:1500"},
		{"its first", Policy{Rules: to(Rule{First: 1000, Last: 2000, HostPort: 5000})}, "tcp 127.0.0.1:1000", web, false, "127.0.0.1:5000 -> 127.0.0.1:1000"},
		{"its last, to the last", Policy{Rules: to(Rule{First: 1, Last: 1000, HostPort: 64536})}, "tcp 127.0.0.1:1000", web, false, "127.0.0.1:65535 -> 127.0.0.1:1000"},
		{"from the last", Policy{Rules: to(Rule{First: 65535, Last: 65535, HostPort: 1})}, "tcp 127.0.0.1:65535", web, false, "127.0.0.1:1 -> 127.0.0.1:65535"},
		{"the scope stays", Policy{Rules: to(Rule{First: 80, Last: 80, HostPort: 81})}, "tcp [::]:80 dual", web, false, "0.0.0.0:81 -> 127.0.0.1:80, [::]:81 -> [::1]:80"},
		{"and so does the twin", Policy{Rules: to(Rule{First: 80, Last: 80, HostPort: 81}), LocalhostTwin: true}, "tcp 127.0.0.1:80", web, false,
			"127.0.0.1:81 -> 127.0.0.1:80, [::1]:81 -> 127.0.0.1:80 alias"},

		{"wider by the rule", Policy{Rules: to(Rule{HostAddress: wildcard4})}, "tcp 127.0.0.1:80", web, false, "0.0.0.0:80 -> 127.0.0.1:80"},
		{"narrower", Policy{Rules: to(Rule{HostAddress: loopback4}), LocalhostTwin: true}, "tcp 0.0.0.0:80", web, false, same},
		{"the same family of two", Policy{Rules: to(Rule{HostAddress: addr("192.0.2.1")})}, "tcp [::]:80 dual", web, false, "192.0.2.1:80 -> 127.0.0.1:80"},
		{"the other of two", Policy{Rules: to(Rule{HostAddress: addr("2001:db8::1")})}, "tcp [::]:80 dual", web, false, "[2001:db8::1]:80 -> [::1]:80"},
		{"the only family", Policy{Rules: to(Rule{HostAddress: loopback4})}, "tcp [::]:80", web, false, "127.0.0.1:80 -> [::1]:80"},
		{"the only family, the other way", Policy{Rules: to(Rule{HostAddress: wildcard6})}, "tcp 0.0.0.0:80", web, false, "[::]:80 -> 127.0.0.1:80"},
		{"the only address", Policy{Rules: to(Rule{HostAddress: loopback6})}, "tcp 10.0.0.5:80", web, false, "[::1]:80 -> 10.0.0.5:80"},
		{"address and port", Policy{Rules: to(Rule{First: 80, Last: 80, HostAddress: addr("127.0.0.5"), HostPort: 443})}, "tcp 0.0.0.0:80", web, false, "127.0.0.5:443 -> 127.0.0.1:80"},

		{"loopback narrows 0.0.0.0", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: wildcard4})}, "tcp 127.0.0.1:80", web, false, same},
		{"loopback narrows ::", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: wildcard6})}, "tcp 127.0.0.1:80", web, false, "[::1]:80 -> 127.0.0.1:80"},
		{"loopback is loopback", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: addr("127.0.0.9")})}, "tcp 0.0.0.0:80", web, false, "127.0.0.9:80 -> 127.0.0.1:80"},
		{"and ::1 is", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: loopback6})}, "tcp [::]:80", web, false, "[::1]:80 -> [::1]:80"},
		{"loopback denies others", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: addr("192.0.2.1")})}, "tcp 0.0.0.0:80", web, false,
			"denied: exposure is loopback, and r opens 192.0.2.1"},
		{"of IPv6, too", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: addr("2001:db8::1")})}, "tcp [::]:80", web, false,
			"denied: exposure is loopback, and r opens 2001:db8::1"},
		{"a rule brings an address of the VM to the loopback", Policy{Exposure: Loopback, Rules: to(Rule{HostAddress: loopback4})}, "tcp 10.0.0.5:80", web, false, "127.0.0.1:80 -> 10.0.0.5:80"},
		{"without it stays out", Policy{Exposure: Loopback, Rules: to(Rule{})}, "tcp 10.0.0.5:80", web, false,
			"ignored: exposure is loopback, and the guest listens on 10.0.0.5 only"},
	} {
		if err := c.policy.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		l := listener(c.listener)
		l.Owner, l.Ephemeral = c.owner, c.clients
		got := c.policy.plan(l)
		if w := got.words(); w != c.want || got.waits || got.hidden != (c.clients && len(got.binds) == 0) {
			t.Errorf("%s: %s, want %s; waits %t, hidden %t", c.name, w, c.want, got.waits, got.hidden)
		}
	}
}

// TestWaiting: what depends on a name that is missing stays closed, and says so;
// what does not is not delayed.
func TestWaiting(t *testing.T) {
	nobody := message.Owner{}
	noName := message.Owner{ContainerID: "0123", Process: "nginx"}
	noProcess := message.Owner{ContainerID: "0123", Container: "web", Image: "nginx"}
	const same = "127.0.0.1:80 -> 127.0.0.1:80"
	const container = "ignored: r asks for the name of the container, which is not known"
	const process = "ignored: r asks for the name of the process, which is not known"
	move := Rule{Name: "r", First: 80, Last: 80, HostPort: 8080}
	with := func(change func(*Rule)) []Rule { r := move; change(&r); return []Rule{r} }
	for _, c := range []struct {
		name  string
		rules []Rule
		owner message.Owner
		want  string
	}{
		{"container of nobody", with(func(r *Rule) { r.Container = "web" }), nobody, container},
		{"container without name", with(func(r *Rule) { r.Container = "web" }), noName, container},
		{"image without name", with(func(r *Rule) { r.Image = "nginx" }), noName, container},
		{"process of nobody", with(func(r *Rule) { r.Process = "nginx" }), nobody, process},
		{"process without name", with(func(r *Rule) { r.Process = "nginx" }), noProcess, process},
		{"process of a container without name", with(func(r *Rule) { r.Process = "nginx" }), noName, "127.0.0.1:8080 -> 127.0.0.1:80"},
		{"what is known differs", with(func(r *Rule) { r.Container, r.Process = "web", "apache" }), noName, same},
		{"what is known differs, the other way", with(func(r *Rule) { r.Container, r.Process = "db", "nginx" }), noProcess, same},
		{"another port", with(func(r *Rule) { r.Container, r.First, r.Last = "web", 81, 81 }), noName, same},
		{"another protocol", with(func(r *Rule) { r.Container, r.Protocol = "web", message.UDP }), noName, same},
		{"it makes no difference", []Rule{{Name: "r", Container: "web"}, {Name: "s", Process: "x"}}, nobody, same},
		{"it makes none to be left out", []Rule{{Name: "r", Container: "web", Ignore: true}, {Name: "s", Ignore: true}}, nobody, "ignored: ignored by s"},
		{"an earlier rule decides", append([]Rule{{Name: "q"}}, with(func(r *Rule) { r.Container = "web" })...), nobody, same},
		{"a later rule might", append(with(func(r *Rule) { r.Container, r.HostPort = "web", 0 }),
			Rule{Name: "s", Process: "nginx"}, Rule{Name: "r", Container: "db", Ignore: true}), nobody, container},
		{"an ignoring rule might", []Rule{{Name: "r", Container: "web", Ignore: true}}, noName, container},
	} {
		p := Policy{Rules: c.rules}
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		l := listener("tcp 127.0.0.1:80")
		l.Owner = c.owner
		got := p.plan(l)
		if w := got.words(); w != c.want || got.waits != (c.want == container || c.want == process) {
			t.Errorf("%s: %s, waits %t, want %s", c.name, w, got.waits, c.want)
		}
	}
}
