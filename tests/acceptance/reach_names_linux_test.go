package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/tests/internal/netns"
)

// call is what a Python program does with a socket, and outcome what it sees.
type call struct {
	Family string `json:"family"` // 4 or 6
	Kind   string `json:"kind"`   // tcp; udp, connected; or sendto
	To     string `json:"to"`
	Port   int    `json:"port"`
	Bind   string `json:"bind"` // an address, or nothing
	At     int    `json:"at"`   // the port to bind, 0 for any
	Only6  bool   `json:"only6"`
}

type outcome struct {
	Error string `json:"error"`
	Got   string `json:"got"`  // the answer
	Peer  string `json:"peer"` // getpeername
	Name  string `json:"name"` // getsockname, with 0 for a port that was chosen
	From  string `json:"from"` // recvfrom
}

// caller reads calls as JSON and prints outcomes.
const caller = `
import errno, json, socket, sys

def show(name, hide):
    return "%s port %d" % (name[0], 0 if hide else name[1])

def make(call, result):
    kind = socket.SOCK_STREAM if call["kind"] == "tcp" else socket.SOCK_DGRAM
    s = socket.socket(socket.AF_INET if call["family"] == "4" else socket.AF_INET6, kind)
    s.settimeout(5)
    if call["family"] == "6":
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if call["only6"] else 0)
    if call["bind"]:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((call["bind"], call["at"]))
    to = (call["to"], call["port"])
    if call["kind"] == "sendto":
        s.sendto(b"ping", to)
    else:
        s.connect(to)
        s.sendall(b"ping")
        result["peer"] = show(s.getpeername(), False)
    got, sender = s.recvfrom(100)
    result["got"] = got.decode()
    if call["kind"] != "tcp":
        result["from"] = show(sender, False)
    result["name"] = show(s.getsockname(), call["at"] == 0)
    s.close()

results = []
for call in json.loads(sys.argv[1]):
    result = {}
    try:
        make(call, result)
    except OSError as e:
        result["error"] = errno.errorcode.get(e.errno, str(e))
    results.append(result)
print(json.dumps(results))
`

// python has a Python program make calls in a namespace.
func (b *bed) python(ns *netns.Namespace, calls []call) (outcomes []outcome) {
	b.t.Helper()
	text, err := json.Marshal(calls)
	must(b.t, err)
	script := filepath.Join(b.dir, "caller.py")
	must(b.t, os.WriteFile(script, []byte(caller), 0o644))
	out, err := runFor(ns, patience, exec.Command(b.need("python3"), script, string(text)))
	must(b.t, err)
	must(b.t, json.Unmarshal([]byte(out), &outcomes))
	return outcomes
}

// compare has the calls made in the guest, whose host serves, and in a namespace
// that serves by itself: nobody can tell which is which. It gives what they see.
func (b *bed) compare(calls []call) []outcome {
	b.t.Helper()
	alone := newNamespace(b.t)
	served := *b
	served.host = alone
	for _, s := range []*bed{b, &served} {
		s.hostEchoes("127.0.0.1:7000", "[::1]:7000")
	}
	got, want := b.python(b.guest, calls), b.python(alone, calls)
	for i, c := range calls {
		if got[i] != want[i] {
			b.t.Errorf("%+v:\n got %+v,\nwant %+v", c, got[i], want[i])
		}
	}
	return got
}

// F8: getpeername, getsockname and recvfrom show the loopback and the port that
// the program asked for: IPv4, IPv6, IPv4-mapped as Java has it, IPV6_V6ONLY, and
// the destinations that only mean the loopback.
func TestF8Names(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	var calls []call
	for _, c := range []call{
		{Family: "4", To: "127.0.0.1"},
		{Family: "4", To: "0.0.0.0"},
		{Family: "6", To: "::1"},
		{Family: "6", To: "::"},
		{Family: "6", To: "::1", Only6: true},
		{Family: "6", To: "::", Only6: true},
		{Family: "6", To: "::ffff:127.0.0.1"},
		{Family: "6", To: "::ffff:0.0.0.0"},
		{Family: "6", To: "::ffff:127.0.0.1", Only6: true},
	} {
		for _, kind := range []string{"tcp", "udp", "sendto"} {
			for _, port := range []int{7000, 7001} { // open, and closed
				if c.Kind, c.Port = kind, port; kind != "sendto" || port == 7000 { // nobody would tell
					calls = append(calls, c)
				}
			}
		}
	}
	outcomes := b.compare(calls)
	// Both may not be wrong together.
	for i, c := range calls {
		o := outcomes[i]
		if c.Port == 7001 || c.Only6 && strings.Contains(c.To, "ffff") {
			if o.Error == "" {
				t.Errorf("%+v works: %+v", c, o)
			}
			continue
		}
		loopback := map[string]string{"0.0.0.0": "127.0.0.1", "::": "::1", "::ffff:0.0.0.0": "::ffff:127.0.0.1"}[c.To]
		if loopback == "" {
			loopback = c.To
		}
		want := fmt.Sprintf("%s port 7000", loopback)
		if o.Got != "ping" || c.Kind != "sendto" && o.Peer != want || c.Kind != "tcp" && o.From != want {
			t.Errorf("%+v sees %+v", c, o)
		}
	}
}

// F10: clients that are bound to an address of the loopback, with a port or
// without. One bound to ::1 cannot leave the loopback device, and behaves as
// without us.
func TestF10BoundClients(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	var calls []call
	for i, c := range []call{
		{Family: "4", Bind: "127.0.0.1", To: "127.0.0.1"},
		{Family: "4", Bind: "0.0.0.0", To: "127.0.0.1"},
		{Family: "4", Bind: "127.0.0.1", To: "0.0.0.0"},
		{Family: "6", Bind: "::ffff:127.0.0.1", To: "::ffff:127.0.0.1"},
		{Family: "6", Bind: "::", To: "::1"},
		{Family: "6", Bind: "::", To: "::ffff:127.0.0.1"},
		{Family: "6", Bind: "::", To: "::1", Only6: true},
	} {
		for _, kind := range []string{"tcp", "udp", "sendto"} {
			for _, at := range []int{0, 9000 + i} {
				c.Kind, c.Port, c.At = kind, 7000, at
				calls = append(calls, c)
			}
		}
	}
	for i, o := range b.compare(calls) {
		if o.Got != "ping" {
			t.Errorf("%+v: %+v", calls[i], o)
		}
	}
	calls = slices.DeleteFunc(calls, func(c call) bool { return c.Family == "4" || c.Only6 || c.Kind == "sendto" })
	for i := range calls {
		calls[i].Bind, calls[i].To = "::1", "::1"
	}
	without := b.python(newNamespace(t), calls) // where nobody serves
	for i, o := range b.python(b.guest, calls) {
		if o != without[i] {
			t.Errorf("%+v: %+v, and %+v without us", calls[i], o, without[i])
		}
	}
}
