package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestReadAll(t *testing.T) {
	e := open(t, Sources{Path: write(t, `
host_networking:
  enabled: true
exposure: loopback
localhost_twin: true
ports:
  ignore: [22, 5353/udp, 8000-8010/tcp]
  ignore_processes: [sshd]
  allow: all
  deny: []
  rules:
    - protocol: tcp
      guest_address: "::1"
      port: 80
      host_port: 8080
    - {image: "postgres*", host_address: 127.0.0.2}
    - container: db
      action: ignore
    - port: 9000-9009
      host_port: 19000-19009
      action: forward
host_reach:
  enabled: false
  allow: [80/tcp, 5000-5999]
  deny: [5432]
links:
  - name: default
    url: "vsock://3:732"
  - {name: lab.2, url: exec:ssh vm vmbridge-guest serve --stdio}
limits: {listeners: 1000, flows: 2000, udp_idle: 1m30s, memory: 1GiB}
isolation:
  enhanced_container_isolation: true
`)}).Effective()
	want := Settings{
		HostNetworking: HostNetworking{Enabled: true},
		Exposure:       Loopback,
		LocalhostTwin:  true,
		Ports: Ports{
			Ignore:          []PortRange{{"", 22, 22}, {"udp", 5353, 5353}, {"tcp", 8000, 8010}},
			IgnoreProcesses: []string{"sshd"},
			Deny:            []PortRange{},
			Rules: []Rule{
				{Protocol: "tcp", GuestAddress: netip.IPv6Loopback(), First: 80, Last: 80, Action: Forward, HostPort: 8080},
				{Image: "postgres*", Action: Forward, HostAddress: netip.MustParseAddr("127.0.0.2")},
				{Container: "db", Action: Ignore},
				{First: 9000, Last: 9009, Action: Forward, HostPort: 19000},
			},
		},
		HostReach: HostReach{Allow: []PortRange{{"tcp", 80, 80}, {"", 5000, 5999}}, Deny: []PortRange{{"", 5432, 5432}}},
		Links: []Link{
			{Name: "default", URL: "vsock://3:732"},
			{Name: "lab.2", URL: "exec:ssh vm vmbridge-guest serve --stdio"},
		},
		Limits:    Limits{Listeners: 1000, Flows: 2000, UDPIdle: 90e9, Memory: gibibyte},
		Isolation: Isolation{EnhancedContainerIsolation: true},
	}
	if !reflect.DeepEqual(e.Settings, want) {
		t.Errorf("got  %+v\nwant %+v", e.Settings, want)
	}
}

// rulesFile is a settings file with rules, the first of them on line 3.
func rulesFile(rules ...string) string {
	return "ports:\n  rules:\n    - {" + strings.Join(rules, "}\n    - {") + "}\n"
}

// G1: a bad settings file is a clear error naming file, line and key.
func TestMistakes(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		// Keys.
		{"exposure: mirror\nexpsoure: loopback\n", ":2: expsoure: unknown key: did you mean exposure?"},
		{"colour: red\n", ":1: colour: unknown key: known here: host_networking, exposure, localhost_twin, ports, host_reach, links, limits, isolation"},
		{"hostNetworking:\n  enabled: true\n", ":1: hostNetworking: unknown key: did you mean host_networking?"},
		{"enabled: true\n", ":1: enabled: unknown key: did you mean host_networking.enabled or host_reach.enabled?"},
		{"deny: [1]\n", ":1: deny: unknown key: did you mean ports.deny or host_reach.deny?"},
		{"enhancedContainerIsolation: true\n", ":1: enhancedContainerIsolation: unknown key: did you mean isolation.enhanced_container_isolation?"},
		{"host_networking:\n  enable: true\n", ":2: host_networking.enable: unknown key: did you mean host_networking.enabled?"},
		{"host_networking:\n  exposure: mirror\n", ":2: host_networking.exposure: unknown key: did you mean exposure?"},
		{"host_networking:\n  colour: red\n", ":2: host_networking.colour: unknown key: known here: enabled"},
		{"limits:\n  colour: 1\n", ":2: limits.colour: unknown key: known here: listeners, flows, udp_idle, memory"},
		{"ports.deny: [1]\n", ":1: ports.deny: unknown key: write deny below ports, without the dot"},
		{"<<: {exposure: mirror}\n", ":1: <<: unknown key: known here: host_networking, exposure, localhost_twin, ports, host_reach, links, limits, isolation"},
		{"\"a\\e[0m\\n\": b\n", `:1: "a\x1b[0m\n": unknown key: known here: ` + strings.Join(beside(""), ", ")},
		{"exposure: mirror\nexposure: loopback\n", ":2: exposure: appears twice"},
		{"ports:\n  deny: []\nexposure: mirror\nports:\n  allow: []\n", ":4: ports: appears twice"},
		{"? [a]\n: b\n", ":1: has a name that is not a text"},
		{"ports: 22\n", `:1: ports: must be a mapping of keys to values, not "22"`},
		{"host_reach: true\n", `:1: host_reach: must be a mapping of keys to values, not "true"`},
		{"limits: [1]\n", ":1: limits: must be a mapping of keys to values, not a list"},
		// The file.
		{"- a\n", ":1: must be a mapping of keys to values, not a list"},
		{"hello\n", `:1: must be a mapping of keys to values, not "hello"`},
		{"exposure: mirror\n---\nexposure: loopback\n", ": more than one document: remove what follows the first ---"},
		{"exposure: mirror\nports: [22\n", ":1: here or on the next line: not YAML: did not find expected ',' or ']'"},
		{"\x00\x01", ": not YAML: control characters are not allowed"},
		{strings.Repeat("#\n", maxFile), ": larger than 1048576 bytes"},
		// Scalars.
		{"host_networking:\n  enabled: maybe\n", `:2: host_networking.enabled: must be true or false, not "maybe"`},
		{"host_networking:\n  enabled: yes\n", `:2: host_networking.enabled: must be true or false, not "yes"`},
		{"localhost_twin: \"true\"\n", `:1: localhost_twin: must be true or false, not the text "true"`},
		{"localhost_twin: !!bool x\n", `:1: localhost_twin: must be true or false, not "x"`},
		{"localhost_twin: [true]\n", ":1: localhost_twin: must be true or false, not a list"},
		{"localhost_twin:\n", ":1: localhost_twin: must be true or false, not empty"},
		{"\nexposure: wide\n", `:2: exposure: must be mirror or loopback, not "wide"`},
		{"exposure: {}\n", ":1: exposure: must be mirror or loopback, not a mapping"},
		{"limits: {listeners: 0}\n", `:1: limits.listeners: must be a whole number from 1 to 200000, not "0"`},
		{"limits: {listeners: 1.5}\n", `:1: limits.listeners: must be a whole number from 1 to 200000, not "1.5"`},
		{"limits: {flows: \"5\"}\n", `:1: limits.flows: must be a whole number from 1 to 1000000, not the text "5"`},
		{"limits: {flows: 0x10}\n", `:1: limits.flows: must be a whole number from 1 to 1000000, not "0x10"`},
		{"limits: {udp_idle: 180}\n", `:1: limits.udp_idle: must be a time from 1s to 24h such as 90s, 5m or 1h30m, not "180"`},
		{"limits: {udp_idle: 25h}\n", `:1: limits.udp_idle: must be a time from 1s to 24h such as 90s, 5m or 1h30m, not "25h"`},
		{"limits: {udp_idle: -5s}\n", `:1: limits.udp_idle: must be a time from 1s to 24h such as 90s, 5m or 1h30m, not "-5s"`},
		{"limits: {memory: 256MB}\n", `:1: limits.memory: must be a size from 16MiB to 64GiB such as 512MiB or 2GiB, not "256MB"`},
		{"limits: {memory: 8MiB}\n", `:1: limits.memory: must be a size from 16MiB to 64GiB such as 512MiB or 2GiB, not "8MiB"`},
		{"limits: {memory: 4294967295GiB}\n", `:1: limits.memory: must be a size from 16MiB to 64GiB such as 512MiB or 2GiB, not "4294967295GiB"`},
		// Ports.
		{"ports:\n  ignore:\n    - 22\n    - 70000\n", ":4: ports.ignore[1]: 70000 is no port: ports are 1 to 65535"},
		{"host_reach:\n  allow: [80, 0]\n", ":2: host_reach.allow[1]: 0 is no port: ports are 1 to 65535"},
		{"host_reach:\n  deny:\n    - 9-1\n", ":3: host_reach.deny[0]: 9-1 runs backwards"},
		{"ports: {deny: [022]}\n", ":1: ports.deny[0]: 022 must not begin with 0"},
		{"ports: {deny: [ssh]}\n", `:1: ports.deny[0]: must be PORT or PORT-PORT, not "ssh"`},
		{"ports: {deny: [22/sctp]}\n", `:1: ports.deny[0]: must be PORT or PORT-PORT, with /tcp or /udp for one protocol, not "22/sctp"`},
		{"ports: {deny: [[1]]}\n", ":1: ports.deny[0]: must be a text, not a list"},
		{"ports: {deny: [~]}\n", ":1: ports.deny[0]: must be a text, not empty"},
		{"ports: {deny: [\"\"]}\n", ":1: ports.deny[0]: must not be empty"},
		{"ports: {ignore: 22}\n", `:1: ports.ignore: must be a list, not "22"`},
		{"ports: {ignore: all}\n", `:1: ports.ignore: must be a list, not "all"`},
		{"host_reach:\n  allow:\n", ":2: host_reach.allow: must be all or a list, not empty"},
		{"ports:\n  allow: none\n", `:2: ports.allow: must be all or a list, not "none"`},
		{"ports: {allow: {a: b}}\n", ":1: ports.allow: must be a list, not a mapping"},
		{"ports:\n  ignore: [53]\n  deny:\n  - 22/tcp\n  - 20-30\n", ":5: ports.deny[1]: 20-30 overlaps 22/tcp, which is [0]"},
		{"ports: {allow: [53, 1, 53/udp]}\n", ":1: ports.allow[2]: 53/udp overlaps 53, which is [0]"},
		{"ports: {deny: [" + strings.Repeat("1,", maxElements) + "1]}\n", ":1: ports.deny: has 1025 elements: 1024 at most"},
		// Patterns.
		{"ports: {ignore_processes: ['[a']}\n", `:1: ports.ignore_processes[0]: "[a" is no pattern: a bracket or a backslash is not complete`},
		{"ports: {ignore_processes: [a, b, a]}\n", `:1: ports.ignore_processes[2]: "a" is there already, as [0]`},
		{"ports: {ignore_processes: [\"a\\nb\"]}\n", `:1: ports.ignore_processes[0]: "a\nb" has characters that cannot be shown`},
		{"ports: {ignore_processes: [" + strings.Repeat("a", maxText+1) + "]}\n", ":1: ports.ignore_processes[0]: has 4097 bytes: 4096 at most"},
		// Links.
		{"links:\n  - name: a\n", ":2: links[0]: must have a name and a url"},
		{"links:\n  - name: a\n    uri: b\n", ":3: links[0].uri: unknown key: did you mean url?"},
		{"links:\n  - name: a\n    name: b\n", ":3: links[0].name: appears twice"},
		{"links:\n  - name: a\n    url: [b]\n", ":3: links[0].url: must be a text, not a list"},
		{"links:\n  - url: b\n    name: ../a\n", `:3: links[0].name: link name "../a": must be letters, digits, dots, dashes and underscores, 63 at most`},
		{"links:\n  - {name: a, url: b}\n  - {name: A, url: c}\n", `:3: links[1]: the name "A" is taken by [0]`},
		{"links: [a=b]\n", `:1: links[0]: must be a mapping of name, url, not "a=b"`},
		{"links: &x [*x]\n", ":1: links[0]: must be a mapping of name, url, not a list"},
		// Rules, one by one.
		{rulesFile("prot: tcp"), ":3: ports.rules[0].prot: unknown key: did you mean port?"},
		{rulesFile("protocoll: tcp"), ":3: ports.rules[0].protocoll: unknown key: did you mean protocol?"},
		{rulesFile("port: 1, port: 2"), ":3: ports.rules[0].port: appears twice"},
		{rulesFile("action: ignore"), ":3: ports.rules[0]: must have at least one of protocol, guest_address, port, container, image, process"},
		{rulesFile(""), ":3: ports.rules[0]: must have at least one of protocol, guest_address, port, container, image, process"},
		{rulesFile("port: 80"), ":3: ports.rules[0]: must say what to do: action, host_address or host_port"},
		{rulesFile("port: 80, action: drop"), `:3: ports.rules[0].action: must be forward or ignore, not "drop"`},
		{rulesFile("port: 80, action: ignore, host_port: 81"), ":3: ports.rules[0].action: what is ignored has no host_address or host_port"},
		{rulesFile("protocol: sctp, action: ignore"), `:3: ports.rules[0].protocol: must be tcp or udp, not "sctp"`},
		{rulesFile("guest_address: localhost, action: ignore"), `:3: ports.rules[0].guest_address: must be an IP address without a zone, not "localhost"`},
		{rulesFile("port: 1, host_address: 224.0.0.1"), ":3: ports.rules[0].host_address: nobody can listen on 224.0.0.1, which is for multicast or broadcast"},
		{rulesFile("port: 1, host_address: 255.255.255.255"), ":3: ports.rules[0].host_address: nobody can listen on 255.255.255.255, which is for multicast or broadcast"},
		{rulesFile(`port: 1, host_address: "ff02::1"`), ":3: ports.rules[0].host_address: nobody can listen on ff02::1, which is for multicast or broadcast"},
		{rulesFile(`port: 1, host_address: "fe80::1%eth0"`), `:3: ports.rules[0].host_address: must be an IP address without a zone, not "fe80::1%eth0"`},
		{rulesFile("port: 80/tcp, action: ignore"), `:3: ports.rules[0].port: must be PORT or PORT-PORT, not "80/tcp": say protocol: tcp`},
		{rulesFile("port: 0, action: ignore"), ":3: ports.rules[0].port: 0 is no port: ports are 1 to 65535"},
		{rulesFile("process: a, host_port: 80"), ":3: ports.rules[0].host_port: needs port, the guest's"},
		{rulesFile("port: 80-89, host_port: 8080"), ":3: ports.rules[0].host_port: 8080 and port 80-89 are not of equal length"},
		{rulesFile("port: 80, host_port: 8080-8081"), ":3: ports.rules[0].host_port: 8080-8081 and port 80 are not of equal length"},
		{rulesFile("port: 1-10, host_port: 65530-65539"), ":3: ports.rules[0].host_port: 65539 is no port: ports are 1 to 65535"},
		{rulesFile("container: '[', action: ignore"), `:3: ports.rules[0].container: "[" is no pattern: a bracket or a backslash is not complete`},
		{"ports:\n  rules:\n  - port: 80\n    host_port:\n", ":4: ports.rules[0].host_port: must be a text, not empty"},
		// Rules together.
		{rulesFile("port: 1-100, action: ignore", "protocol: tcp, port: 80, action: forward"), ":4: ports.rules[1]: is never reached: [0] matches everything that it matches"},
		{rulesFile("port: 80, action: ignore", "port: 80, action: forward"), ":4: ports.rules[1]: is never reached: [0] matches everything that it matches"},
		{rulesFile("container: 'web*', action: ignore", "port: 1, action: ignore", "container: web1, action: forward"), ":5: ports.rules[2]: is never reached: [0] matches everything that it matches"},
		{rulesFile("port: 80, host_port: 8080", "port: 81, host_port: 8080"), ":4: ports.rules[1]: opens port 8080 of this machine, as [0] does for another port of the guest, and nothing else tells the two apart"},
		{rulesFile("protocol: tcp, port: 80, host_port: 8080", "port: 8000-8100, action: forward"), ":4: ports.rules[1]: opens port 8080 of this machine, as [0] does for another port of the guest, and nothing else tells the two apart"},
		{rulesFile("port: 10-19, host_port: 110-119", "port: 20-29, host_port: 119-128"), ":4: ports.rules[1]: opens port 119 of this machine, as [0] does for another port of the guest, and nothing else tells the two apart"},
	} {
		t.Run("", func(t *testing.T) {
			path := write(t, test.text)
			_, err := Open(Sources{Path: path})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%.100q: got %v, want an *Error", test.text, err)
			}
			if want := path + test.want; err.Error() != want {
				t.Errorf("%.100q:\n got %s\nwant %s", test.text, strings.TrimPrefix(err.Error(), path), test.want)
			}
			if strings.Contains(test.want, ErrUnknownKey.Error()) != errors.Is(err, ErrUnknownKey) {
				t.Errorf("%v: is ErrUnknownKey: %t", err, errors.Is(err, ErrUnknownKey))
			}
		})
	}
}

// Rules that are told apart by something, or that are reached in part, are right.
func TestRulesThatAreNoMistake(t *testing.T) {
	for _, text := range []string{
		rulesFile("protocol: tcp, port: 80, action: ignore", "port: 80, action: forward"),
		rulesFile("port: 80-90, action: ignore", "port: 85-95, action: forward"),
		rulesFile("container: web, action: ignore", "action: forward, container: 'web*'"),
		rulesFile("container: '*', action: ignore", "action: forward, image: nginx"),
		rulesFile("image: '*', action: ignore", "action: forward, image: 'a/b'"),
		rulesFile("image: '*', action: ignore", "action: forward, image: 'a[^x]b'"),
		rulesFile("guest_address: 127.0.0.1, action: ignore", "action: forward, guest_address: '::1'"),
		rulesFile("protocol: tcp, port: 80, host_port: 8080", "protocol: udp, port: 81, host_port: 8080"),
		rulesFile("port: 80, host_port: 8080", "port: 81, host_port: 8080, host_address: 127.0.0.2"),
		rulesFile("port: 80, host_port: 8080", "port: 81, host_port: 8080, guest_address: 10.0.0.1"),
		rulesFile("port: 80, host_port: 8080, container: a", "port: 80, host_port: 8080, container: b"),
		rulesFile("port: 80, host_port: 8080, process: a", "port: 81, host_port: 8080, process: b"),
		rulesFile("port: 80-89, host_port: 8080-8089", "port: 90, host_port: 8090"),
		rulesFile("port: 80, host_port: 8080", "port: 8080, host_port: 80"),
		// The guest's 8080 is the first rule's, so the last does not open 8080.
		rulesFile("port: 8080, action: ignore", "port: 80, host_port: 8080", "port: 8000-8100, action: forward"),
		rulesFile("port: 80, host_port: 8080", "port: 8080, host_port: 8081", "port: 8000-8080, action: ignore"),
	} {
		if _, err := Open(Sources{Path: write(t, text)}); err != nil {
			t.Errorf("%s%v", text, err)
		}
	}
}

// Anchors stand for what they are put on.
func TestAnchors(t *testing.T) {
	e := open(t, Sources{Path: write(t, "ports:\n  ignore: &web [80, 443]\n  deny: *web\nhost_reach: &h {allow: *web}\n")}).Effective()
	if fmt.Sprint(e.Ports.Deny, e.HostReach.Allow) != "[80 443] [80 443]" {
		t.Errorf("got %v, %v", e.Ports.Deny, e.HostReach.Allow)
	}
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(Sources{Path: dir})
	var e *Error
	if !errors.As(err, &e) || e.Path != dir || strings.Count(err.Error(), dir) != 1 {
		t.Errorf("got %v, want an *Error about %s", err, dir)
	}
}

func TestParsePortRange(t *testing.T) {
	for _, s := range []string{"1", "65535", "22/tcp", "1-65535/udp", "8000-8010"} {
		r, err := ParsePortRange(s)
		if err != nil || r.String() != s {
			t.Errorf("%q gave %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "0", "65536", "-1", "2-1", "1-", "-", "22/sctp", "22/", "/tcp", "1-2-3", " 1", "0x10", "+1",
		"99999999999999999999999", "1_0", "٣"} {
		if r, err := ParsePortRange(s); err == nil {
			t.Errorf("%q gave %v", s, r)
		}
	}
}

func TestParseLink(t *testing.T) {
	l, err := ParseLink("a=exec:ssh vm A=B serve")
	if want := (Link{Name: "a", URL: "exec:ssh vm A=B serve"}); err != nil || l != want {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, s := range []string{"", "a", "a=", "=b", "a/b=c", ".a=c", "a b=c", "\x1b=c"} {
		if l, err := ParseLink(s); err == nil {
			t.Errorf("%q gave %+v", s, l)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1},
		{"abc", "ab", 1}, {"ab", "abc", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2},
	} {
		if got := distance(test.a, test.b); got != test.want || distance(test.b, test.a) != test.want {
			t.Errorf("%s, %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
