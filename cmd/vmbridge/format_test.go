package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
)

var (
	any4 = netip.MustParseAddr("0.0.0.0")
	any6 = netip.MustParseAddr("::")
	one6 = netip.MustParseAddr("::1")
)

// examplePorts has a port of each shape that the listing must cope with.
func examplePorts() []control.Port {
	return []control.Port{
		{
			Protocol: "tcp", Guest: control.Address{Address: any4, Port: 80}, State: control.PortOpen, Link: "default",
			Host: []control.HostPort{
				{Address: any4, Port: 80, State: control.PortOpen},
				{Address: one6, Port: 80, State: control.PortOpen, Alias: true},
			},
			Owner: control.Owner{Container: "web", Image: "nginx", Process: "nginx", PID: 12},
		},
		{
			Protocol: "udp", Guest: control.Address{Address: any6, Port: 53, DualStack: true}, State: control.PortIgnored,
			Reason: "rule 53", Link: "default", Owner: control.Owner{Process: "dnsmasq", PID: 3},
		},
		{
			Protocol: "tcp", Guest: control.Address{Address: any6, Port: 8000, DualStack: true}, State: control.PortConflict,
			Reason: "in use by nc (pid 7)", Link: "default",
			Host: []control.HostPort{
				{Address: any4, Port: 8000, State: control.PortConflict, Reason: "in use by nc (pid 7)"},
				{Address: any6, Port: 8000, State: control.PortOpen},
			},
		},
	}
}

func TestWritePorts(t *testing.T) {
	var out strings.Builder
	if err := writePorts(&out, examplePorts()); err != nil {
		t.Fatal(err)
	}
	const want = `
PROTO  GUEST            HOST                         STATE     OWNER/REASON
tcp    0.0.0.0:80       0.0.0.0:80, [::1]:80 (alias)  open      container web (nginx), nginx (pid 12)
udp    [::]:53 +ipv4                                 ignored   rule 53; guest: dnsmasq (pid 3)
tcp    [::]:8000 +ipv4  0.0.0.0:8000                 conflict  in use by nc (pid 7)
                        [::]:8000                    open      
`
	if got := "\n" + out.String(); squeeze(got) != squeeze(want) {
		t.Errorf("got:%s", got)
	}
	// Aligned: each column starts at one place in every line.
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	column := strings.Index(lines[0], "STATE")
	for i, state := range []string{"STATE", "open", "ignored", "conflict", "open"} {
		if strings.Index(lines[i], state) != column {
			t.Errorf("line %d is not aligned: %q", i, lines[i])
		}
	}
}

// squeeze makes every run of spaces one and drops those at the ends of lines.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestPortsOfSeveralLinks(t *testing.T) {
	ports := examplePorts()[:2]
	ports[1].Link = "lab"
	var out strings.Builder
	if err := writePorts(&out, ports); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.HasPrefix(lines[0], "LINK ") || !strings.HasPrefix(lines[1], "default ") || !strings.HasPrefix(lines[2], "lab ") {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestWriteReached(t *testing.T) {
	var out strings.Builder
	if err := writeReached(&out, []control.ReachedPort{
		{Link: "default", Protocol: "tcp", Port: 5432, State: "open", Flows: 2, BytesIn: 10, BytesOut: 2000},
		{Link: "default", Protocol: "udp", Port: 53, State: "denied", Reason: "the settings deny port 53"},
	}); err != nil {
		t.Fatal(err)
	}
	const want = `
LINK FROM GUEST TO STATE FLOWS SENT RECEIVED REASON
default tcp localhost:5432 open 2 10 2000
default udp localhost:53 denied 0 0 0 the settings deny port 53
`
	if got := squeeze("\n" + out.String()); got != strings.TrimSuffix(want, "\n") {
		t.Errorf("got:\n%s", got)
	}
}

func TestEventLines(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 6e6, time.UTC)
	ports := examplePorts()
	for _, test := range []struct {
		event control.Event
		want  string
	}{
		{control.Event{Type: control.Ready}, "03:04:05.006  watching; interrupt to end\n"},
		{control.Event{Type: control.Appear, Port: ports[0]},
			"03:04:05.006  appear  tcp 0.0.0.0:80  -> 0.0.0.0:80, [::1]:80 (alias)  open  container web (nginx), nginx (pid 12)\n"},
		{control.Event{Type: control.Appear, Port: ports[1]},
			"03:04:05.006  appear  udp [::]:53 +ipv4  ignored: rule 53  dnsmasq (pid 3)\n"},
		{control.Event{Type: control.Change, Port: ports[2]},
			"03:04:05.006  change  tcp [::]:8000 +ipv4  -> 0.0.0.0:8000  conflict: in use by nc (pid 7);  -> [::]:8000  open\n"},
		{control.Event{Type: control.Gone, Port: ports[2]}, "03:04:05.006  gone    tcp [::]:8000 +ipv4\n"},
	} {
		if got := eventLine(test.event, now); got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

func TestWriteStatus(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	status := control.Status{
		Version: "1.0", PID: 42, Home: "/h", Since: now.Add(-90 * time.Second),
		HostNetworking: control.Off, Isolation: control.Unknown, Evidence: []string{"settings-store.json: no such key"},
		Warnings: []string{"two forwarders"},
		Links: []control.Link{
			{Name: "default", URL: "sandbox:", State: control.LinkUp, AgentVersion: "1.0", Kernel: "6.1.0",
				Detection: control.Feature{State: "poll", Reason: "no eBPF: operation not permitted"},
				HostReach: control.Feature{State: "unavailable", Reason: "not in this version"},
				Carried:   []control.Carried{{Product: "Lima", VM: "dev", Ports: 200, Switch: "ignore: true"}, {Product: "OrbStack", Ports: 1}}},
			{Name: "lab", URL: "vsock://3:732", State: control.LinkRefused, Reason: "wrong key"},
		},
		Counts: control.Count(examplePorts(), []control.ReachedPort{{Flows: 2}, {Flows: 1}}),
	}
	var out strings.Builder
	if err := writeStatus(&out, status, now); err != nil {
		t.Fatal(err)
	}
	const want = `
daemon vmbridge 1.0, pid 42, up 1m30s
home /h
host networking off (turn it on: vmbridge enable)
isolation unknown
evidence settings-store.json: no such key
warning two forwarders
ports 3 listeners: 1 open, 1 conflict, 1 ignored; 0 flows, and 3 from guests to localhost here

link default sandbox:
state up
agent vmbridge-guest 1.0 on Linux 6.1.0
detection poll: no eBPF: operation not permitted
host reach unavailable: not in this version
carried 200 ports by Lima "dev"; they open here when it lets go: ignore: true
carried 1 port by OrbStack, which has no switch for that

link lab vsock://3:732
state refused: wrong key`
	if got := squeeze("\n" + out.String()); got != want {
		t.Errorf("got:%s", got)
	}
}

func TestNothingOpen(t *testing.T) {
	for want, status := range map[string]control.Status{
		"host networking is off":      {HostNetworking: control.Off},
		"link lab is down: no answer": {HostNetworking: control.On, Links: []control.Link{{Name: "lab", State: control.LinkDown, Reason: "no answer"}}},
		"nothing listens":             {HostNetworking: control.On, Links: []control.Link{{Name: "lab", State: control.LinkUp}}},
	} {
		if got := nothingOpen(status); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}
