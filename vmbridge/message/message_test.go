package message_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

func key(protocol message.Protocol, addr string) message.Key {
	ap := netip.MustParseAddrPort(addr)
	return message.Key{Protocol: protocol, Address: ap.Addr(), Port: ap.Port()}
}

func sample() message.Message {
	dual := key(message.TCP, "[::]:80")
	dual.DualStack = true
	return message.Message{Listeners: &message.Listeners{
		Reset: true,
		Add: []message.Listener{
			{Key: dual, Owner: message.Owner{Container: "web", ContainerID: "0123456789ab", Image: "nginx:1", Process: "nginx", PID: 1234}},
			{Key: key(message.UDP, "127.0.0.1:53"), Ephemeral: true},
			{Key: key(message.TCP, "[fe80::1%eth0]:8080")},
		},
		Remove:  []message.Key{key(message.TCP, "127.0.0.1:9000")},
		More:    true,
		Dropped: 7,
	}}
}

// TestRoundTrip sends every kind of message through its encoded form.
func TestRoundTrip(t *testing.T) {
	for _, m := range []message.Message{
		sample(),
		{Agent: &message.Agent{
			Version: "1.2.3", Kernel: "6.18.0",
			Detection: message.Feature{State: "poll", Reason: "no eBPF: operation not permitted"},
			HostReach: message.Feature{State: "on"},
		}},
		{Agent: &message.Agent{Isolation: &message.Isolation{}}},
		{Agent: &message.Agent{Isolation: &message.Isolation{
			Findings: []message.IsolationFinding{
				{Kind: message.IsolationDefaultRuntime, Detail: "sysbox-runc, engine at /var/run/docker.sock"},
				{Kind: message.IsolationSysboxProcess, Detail: "sysbox-mgr, process 812"},
			},
			Incomplete: []string{"engine at /run/podman/podman.sock: it does not answer"},
		}}},
		{Host: &message.Host{Version: "1.2.3", HostReach: true, UDPIdleMilliseconds: 1500}},
		{Listeners: &message.Listeners{}},
		{},
	} {
		data, err := message.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := message.Decode(data)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: decoded as %+v, %v", data, got, err)
		}
	}
}

// TestUnknown checks that newer peers may say more than we know.
func TestUnknown(t *testing.T) {
	got, err := message.Decode([]byte(`{"weather":{"state":"fine"},"agent":{"version":"9","moon":1}}`))
	if err != nil || got.Agent == nil || got.Agent.Version != "9" || got.Listeners != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestInvalid holds H2: what no honest agent says is refused.
func TestInvalid(t *testing.T) {
	add := func(key string) string { return `{"listeners":{"add":[{` + key + `}]}}` }
	for name, text := range map[string]string{
		"nothing":              ``,
		"no JSON":              `{"listeners":`,
		"no object":            `[]`,
		"two values":           `{} {}`,
		"protocol":             add(`"protocol":"sctp","address":"127.0.0.1","port":1`),
		"protocol with escape": add(`"protocol":"\u001b[31m","address":"127.0.0.1","port":1`),
		"no address":           add(`"protocol":"tcp","port":1`),
		"bad address":          add(`"protocol":"tcp","address":"localhost","port":1`),
		"mapped address":       add(`"protocol":"tcp","address":"::ffff:1.2.3.4","port":1`),
		"port 0":               add(`"protocol":"tcp","address":"127.0.0.1","port":0`),
		"no port":              add(`"protocol":"tcp","address":"127.0.0.1"`),
		"port 65536":           add(`"protocol":"tcp","address":"127.0.0.1","port":65536`),
		"port -1":              add(`"protocol":"tcp","address":"127.0.0.1","port":-1`),
		"IPv4 dual-stack":      add(`"protocol":"tcp","address":"0.0.0.0","port":1,"dual_stack":true`),
		"specific dual-stack":  add(`"protocol":"tcp","address":"::1","port":1,"dual_stack":true`),
		"zone with escape":     add(`"protocol":"tcp","address":"fe80::1%\u001b[31m","port":1`),
		"long zone":            add(`"protocol":"tcp","address":"fe80::1%` + strings.Repeat("x", 16) + `","port":1`),
		"bad removal":          `{"listeners":{"remove":[{"protocol":"tcp","address":"::","port":0}]}}`,
	} {
		m, err := message.Decode([]byte(text))
		if !errors.Is(err, message.ErrInvalid) || !reflect.DeepEqual(m, message.Message{}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%s: control characters in %q", name, err)
		}
	}
}

// TestTooMany holds H2: one message carries a bounded number of listeners.
func TestTooMany(t *testing.T) {
	listeners := func(n int) *message.Listeners {
		l := new(message.Listeners)
		for i := range n {
			l.Add = append(l.Add, message.Listener{Key: key(message.TCP, fmt.Sprintf("127.0.0.1:%d", i+1))})
		}
		return l
	}
	most := listeners(message.MaxListenersPerMessage)
	removal := new(message.Listeners)
	for _, l := range listeners(message.MaxListenersPerMessage + 1).Add {
		removal.Remove = append(removal.Remove, l.Key)
	}
	for _, tc := range []struct {
		l  *message.Listeners
		ok bool
	}{{most, true}, {listeners(message.MaxListenersPerMessage + 1), false}, {removal, false}} {
		data, err := message.Encode(message.Message{Listeners: tc.l})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := message.Decode(data); (err == nil) != tc.ok || (err != nil && !errors.Is(err, message.ErrInvalid)) {
			t.Errorf("%d to add, %d to remove: %v", len(tc.l.Add), len(tc.l.Remove), err)
		}
	}
}

// TestIsolationBounds holds H2: evidence beyond the limit is cut, and what is
// within stays as it is.
func TestIsolationBounds(t *testing.T) {
	sent := new(message.Isolation)
	for i := range message.MaxIsolationEntries + 1 {
		sent.Findings = append(sent.Findings, message.IsolationFinding{Kind: message.IsolationContainerRuntime, Detail: fmt.Sprint(i)})
		sent.Incomplete = append(sent.Incomplete, fmt.Sprint(i))
	}
	data, err := message.Encode(message.Message{Agent: &message.Agent{Isolation: sent}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := message.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	want := &message.Isolation{
		Findings:   sent.Findings[:message.MaxIsolationEntries],
		Incomplete: sent.Incomplete[:message.MaxIsolationEntries],
	}
	if !reflect.DeepEqual(got.Agent.Isolation, want) {
		t.Errorf("got %+v, want %+v", got.Agent.Isolation, want)
	}
	if got, err := message.Decode([]byte(`{"agent":{"version":"1"}}`)); err != nil || got.Agent.Isolation != nil {
		t.Errorf("an agent that does not tell: %+v, %v", got.Agent, err)
	}
}

// TestHostileStrings holds H1: what a guest calls itself can be printed.
func TestHostileStrings(t *testing.T) {
	evil := "\x1b]0;owned\x07\r\nroot: \u202egnp.exe\u2028\xff" + strings.Repeat("ä", 3000)
	m := sample()
	m.Listeners.Add[0].Owner = message.Owner{Container: evil, ContainerID: evil, Image: evil, Process: evil, PID: -5}
	m.Listeners.Dropped = -1
	m.Agent = &message.Agent{Version: evil, Kernel: evil, Detection: message.Feature{State: evil, Reason: evil}, HostReach: message.Feature{State: evil, Reason: evil}}
	m.Agent.Isolation = &message.Isolation{
		Findings:   []message.IsolationFinding{{Kind: evil, Detail: evil}},
		Incomplete: []string{evil},
	}
	m.Host = &message.Host{Version: evil, UDPIdleMilliseconds: 1 << 60}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := message.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	checkStrings(t, got)
	if got.Listeners.Add[0].Owner.PID != 0 || got.Listeners.Dropped != 0 {
		t.Errorf("negative numbers: %+v", got.Listeners)
	}
	if day := 24 * 60 * 60 * 1000; got.Host.UDPIdleMilliseconds != day {
		t.Errorf("an idle time of %d ms, want a day at most", got.Host.UDPIdleMilliseconds)
	}
}

// checkStrings looks at every string of a decoded message.
func checkStrings(t *testing.T, m message.Message) {
	t.Helper()
	var all []string
	if l := m.Listeners; l != nil {
		for _, a := range l.Add {
			all = append(all, a.Key.String(), a.Owner.Container, a.Owner.ContainerID, a.Owner.Image, a.Owner.Process)
		}
		for _, k := range l.Remove {
			all = append(all, k.String())
		}
	}
	if a := m.Agent; a != nil {
		all = append(all, a.Version, a.Kernel, a.Detection.State, a.Detection.Reason, a.HostReach.State, a.HostReach.Reason)
		if i := a.Isolation; i != nil {
			for _, f := range i.Findings {
				all = append(all, f.Kind, f.Detail)
			}
			all = append(all, i.Incomplete...)
		}
	}
	if h := m.Host; h != nil {
		all = append(all, h.Version)
	}
	for _, s := range all {
		if len(s) > 1024 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not safe to print: %q (%d bytes)", s, len(s))
		}
	}
}

func TestClean(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain text", 100, "plain text"},
		{"", 0, ""},
		{"abc", 2, "ab"},
		{"abc", 0, ""},
		{"äöü", 3, "ä"},
		{"äöü", 1, ""},
		{"a\nb\tc\x00", 100, "a\uFFFDb\uFFFDc\uFFFD"},
		{"\x1b[2J", 100, "\uFFFD[2J"},
		{"\u009b2J", 100, "\uFFFD2J"},
		{"a\u202eb\u200fc\ufeff", 100, "a\uFFFDb\uFFFDc\uFFFD"},
		{"\xff\xfe", 100, "\uFFFD\uFFFD"},
		{"\xff\xfe", 4, "\uFFFD"},
		{"日本語 ✓", 100, "日本語 ✓"},
	} {
		if got := message.Clean(tc.in, tc.limit); got != tc.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tc.in, tc.limit, got, tc.want)
		}
	}
}

// FuzzDecode holds H1 and H2: whatever arrives, Decode returns an error or a
// message that is safe to print, within its bounds, and stable.
func FuzzDecode(f *testing.F) {
	if data, err := message.Encode(sample()); err == nil {
		f.Add(data)
	}
	for _, s := range []string{
		`{"agent":{"isolation":{"findings":[{"kind":"default_runtime","detail":"sysbox-runc\u001b[2J"},{}],"incomplete":["\u202e",""]}}}`,
		`{"agent":{"isolation":{"findings":[` + strings.Repeat("{},", 16) + `{}]}}}`,
		`{"agent":{"isolation":null}}`,
		`{}`, `null`, `[]`, `{"listeners":null,"agent":null}`,
		`{"agent":{"version":"\u001b[31m","kernel":"\ud800","detection":{"state":"poll","reason":"\n"}}}`,
		`{"listeners":{"add":[{"protocol":"tcp","address":"::ffff:1.2.3.4","port":1}]}}`,
		`{"listeners":{"add":[{"protocol":"udp","address":"fe80::1%eth0","port":65535,"owner":{"pid":-1,"process":"\u202e"}}],"dropped":-9}}`,
		`{"listeners":{"remove":[{"protocol":"tcp","address":"::","port":80,"dual_stack":true}],"more":true}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := message.Decode(data)
		if err != nil {
			if !errors.Is(err, message.ErrInvalid) {
				t.Errorf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		checkStrings(t, m)
		if a := m.Agent; a != nil && a.Isolation != nil {
			if i := a.Isolation; max(len(i.Findings), len(i.Incomplete)) > message.MaxIsolationEntries {
				t.Errorf("out of bounds: %d findings, %d incomplete", len(i.Findings), len(i.Incomplete))
			}
		}
		if l := m.Listeners; l != nil {
			if len(l.Add) > message.MaxListenersPerMessage || len(l.Remove) > message.MaxListenersPerMessage || l.Dropped < 0 {
				t.Errorf("out of bounds: %d, %d, %d", len(l.Add), len(l.Remove), l.Dropped)
			}
			for _, a := range l.Add {
				if !a.Address.IsValid() || a.Address.Is4In6() || a.Port == 0 {
					t.Errorf("listener %v", a.Key)
				}
			}
		}
		encoded, err := message.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := message.Decode(encoded)
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if second, err := message.Encode(again); err != nil || string(second) != string(encoded) {
			t.Errorf("%s became %s, %v", encoded, second, err)
		}
	})
}

// FuzzClean checks the promises of Clean.
func FuzzClean(f *testing.F) {
	f.Add("plain", 3)
	f.Add("\x1b[0mä\xff", 4)
	f.Add("\u202e\U0010ffff", 0)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 1<<20 {
			return
		}
		got := message.Clean(s, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Clean(%q, %d) = %q", s, limit, got)
		}
		if again := message.Clean(got, limit); again != got {
			t.Errorf("cleaned again, %q becomes %q", got, again)
		}
	})
}
