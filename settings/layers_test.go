package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEveryKeyHasSamples(t *testing.T) {
	for _, k := range Keys() {
		s, ok := samples[k.Key]
		if !ok || s[0] == k.Default || s[1] == k.Default {
			t.Errorf("%s: samples %q, default %s", k.Key, s, k.Default)
		}
		if k.Help == "" {
			t.Errorf("%s has no help", k.Key)
		}
	}
	if len(samples) != len(Keys()) {
		t.Errorf("%d samples for %d keys", len(samples), len(Keys()))
	}
}

// The layers, from the weakest to the strongest.
var layers = []string{"default", "policy default", "file", "environment", "flag", "policy lock"}

// put adds a value to one layer of sources, and tells what the value's origin and place
// are when it wins.
func put(t *testing.T, sources *Sources, layer, name, text string) (Origin, string) {
	t.Helper()
	switch layer {
	case "file":
		sources.Path = write(t, yamlFor(name, text))
		return OriginFile, fmt.Sprintf("%s:%d", sources.Path, strings.Count(yamlFor(name, text), "\n"))
	case "environment":
		sources.Environ = []string{variable(name) + "=" + text}
		return OriginEnvironment, variable(name)
	case "flag":
		sources.Flags = []Flag{{Name: "--it", Key: name, Value: text}}
		return OriginFlag, "--it"
	case "policy default", "policy lock":
		sources.Policy = writePolicy(t, policyFor(t, name, text, layer == "policy lock"))
		return OriginPolicy, sources.Policy
	}
	return OriginDefault, ""
}

// G1, G2: for every key and every two layers the stronger one counts, and says so.
func TestPrecedence(t *testing.T) {
	for _, k := range Keys() {
		for strong, strongName := range layers {
			for weak, weakName := range layers[:strong] {
				if weakName == "policy default" && strongName == "policy lock" {
					continue // one file says only one of them
				}
				t.Run(fmt.Sprintf("%s/%s over %s", k.Key, strongName, weakName), func(t *testing.T) {
					sources := Sources{Path: write(t, "")}
					weakText, strongText := samples[k.Key][0], samples[k.Key][1]
					if weakText == strongText && weak > 0 {
						weakText = k.Default // of two values the default is the other
					}
					put(t, &sources, weakName, k.Key, weakText)
					origin, place := put(t, &sources, strongName, k.Key, strongText)
					e := open(t, sources).Effective()
					if e.PolicyError != nil {
						t.Fatal(e.PolicyError)
					}
					got := e.Value(k.Key)
					want := Value{Key: k.Key, Value: strongText, Default: k.Default, Origin: origin,
						Place: place, Locked: strongName == "policy lock", Help: k.Help}
					if got != want {
						t.Errorf("got  %+v\nwant %+v", got, want)
					}
					// Every other key is left alone.
					for _, v := range e.Values {
						if v.Key != k.Key && (v.Origin != OriginDefault || v.Value != v.Default) {
							t.Errorf("%s came along: %+v", v.Key, v)
						}
					}
				})
			}
		}
	}
}

// Every text that is shown is taken back, in each place where a text is taken.
func TestTextsAreReadBack(t *testing.T) {
	for _, k := range Keys() {
		for _, text := range append([]string{k.Default}, samples[k.Key][0], samples[k.Key][1]) {
			s := open(t, Sources{Path: write(t, "# mine\n"), Flags: []Flag{{"--it", k.Key, text}}})
			if got := s.Effective().Value(k.Key); got.Value != text || got.Origin != OriginFlag {
				t.Errorf("%s by flag: %s gave %+v", k.Key, text, got)
			}
			s.DropFlag(k.Key)
			if got := s.Effective().Value(k.Key); got.Origin != OriginDefault {
				t.Errorf("%s without its flag: %+v", k.Key, got)
			}
			if err := s.Set(k.Key, text); err != nil {
				t.Errorf("%s: set %s: %v", k.Key, text, err)
			}
			if got := s.Effective().Value(k.Key); got.Value != text || got.Origin != OriginFile {
				t.Errorf("%s by Set: %s gave %+v", k.Key, text, got)
			}
		}
		for _, v := range k.Values {
			if err := open(t, Sources{Path: write(t, "")}).Set(k.Key, v); err != nil {
				t.Errorf("%s does not take its own value: %v", k.Key, err)
			}
		}
	}
}

func TestShortForms(t *testing.T) {
	for _, test := range []struct{ key, text, want string }{
		{"ports.deny", "22/tcp, 53", "[22/tcp, 53]"},
		{"ports.deny", "80", "[80]"},
		{"ports.allow", " all ", "all"},
		{"ports.allow", "80-90/tcp,100", "[80-90/tcp, 100]"},
		{"ports.ignore_processes", "sshd,systemd-*", "[sshd, systemd-*]"},
		{"links", "a=vsock://3:732", "[{name: a, url: 'vsock://3:732'}]"},
		{"links", "a=vsock://3:732, b=exec:ssh -o x=1,y=2 vm,c=unix:///s",
			"[{name: a, url: 'vsock://3:732'}, {name: b, url: 'exec:ssh -o x=1,y=2 vm'}, {name: c, url: 'unix:///s'}]"},
		{"ports.rules", "[{port: 80, host_port: 8080, action: forward}]", "[{port: 80, host_port: 8080}]"},
		{"ports.rules", "[{guest_address: '::ffff:10.1.2.3', action: ignore}]", "[{guest_address: 10.1.2.3, action: ignore}]"},
		{"limits.udp_idle", "5m", "300s"},
		{"limits.udp_idle", "120m", "2h"},
		{"limits.memory", "2048 MiB", "2GiB"},
		{"host_networking.enabled", "True", "true"},
	} {
		e := open(t, Sources{Environ: []string{variable(test.key) + "=" + test.text}}).Effective()
		if got := e.Value(test.key).Value; got != test.want {
			t.Errorf("%s: %s gave %s, want %s", test.key, test.text, got, test.want)
		}
	}
}

// Flags of one list add up, as with --link twice; of others the last counts.
func TestFlagTwice(t *testing.T) {
	s := open(t, Sources{Flags: []Flag{
		{"--link", "links", "a=unix:///a"}, {"--link", "links", "b=unix:///b"},
		{"--exposure", "exposure", "loopback"}, {"--exposure", "exposure", "mirror"},
	}})
	want := []Link{{"a", "unix:///a"}, {"b", "unix:///b"}}
	if e := s.Effective(); !slices.Equal(e.Links, want) || e.Exposure != Mirror {
		t.Errorf("got %+v, %s", e.Links, e.Exposure)
	}
	links := Flag{"--link", "links", FormatLinks(want)}
	if e := open(t, Sources{Flags: []Flag{links}}).Effective(); !slices.Equal(e.Links, want) || !e.Same(links) {
		t.Errorf("%s gave %+v", links.Value, e.Links)
	}
	if e := s.Effective(); e.Same(Flag{"--link", "links", "a=unix:///a"}) || e.Same(Flag{"--x", "links", "["}) || !e.Same(Flag{"--x", "exposure", " mirror"}) {
		t.Error("Same takes what differs for the same, or the other way round")
	}
	_, err := Open(Sources{Flags: []Flag{{"--link", "links", "a=unix:///a"}, {"--link", "links", "a=unix:///b"}}})
	if want := `--link: links[1]: the name "a" is taken by [0]`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestEnvironment(t *testing.T) {
	s := open(t, Sources{KnownVariables: []string{"VMBRIDGE_HOME"}, Environ: []string{
		"VMBRIDGE_HOME=/x", "PATH=/bin", "VMBRIDGE_EXPOSURE=", "VMBRIDGE_POTS_DENY=1", "VMBRIDGE_HOEM=/y",
		"VMBRIDGE_QUITE_ANOTHER=1", "VMBRIDGE_EXPOSED=", "nonsense", "VMBRIDGE_LIMITS_FLOWS=7", "VMBRIDGE_LIMITS_FLOWS=8",
	}})
	e := s.Effective()
	want := []string{
		"the variable VMBRIDGE_HOEM is not known: did you mean VMBRIDGE_HOME?",
		"the variable VMBRIDGE_POTS_DENY is not known: did you mean VMBRIDGE_PORTS_DENY?",
		"the variable VMBRIDGE_QUITE_ANOTHER is not known",
	}
	if !slices.Equal(e.Warnings, want) {
		t.Errorf("warnings %q, want %q", e.Warnings, want)
	}
	if e.Exposure != Mirror || e.Value("exposure").Origin != OriginDefault {
		t.Error("an empty variable counts")
	}
	if e.Limits.Flows != 7 {
		t.Errorf("flows %d: of two variables the first counts", e.Limits.Flows)
	}
}

func TestCheckKey(t *testing.T) {
	for name := range samples {
		if err := CheckKey(name); err != nil {
			t.Error(err)
		}
	}
	err := CheckKey("host_reach.denied")
	if want := `"host_reach.denied": unknown key: did you mean host_reach.deny?`; !errors.Is(err, ErrUnknownKey) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if v := open(t, Sources{}).Effective().Value("nothing"); v != (Value{}) {
		t.Errorf("%+v", v)
	}
}

func TestBadVariablesAndFlags(t *testing.T) {
	for _, test := range []struct {
		sources Sources
		want    string
	}{
		{Sources{Environ: []string{"VMBRIDGE_EXPOSURE=wide"}}, `VMBRIDGE_EXPOSURE: exposure: must be mirror or loopback, not "wide"`},
		{Sources{Environ: []string{"VMBRIDGE_PORTS_DENY=22,,53"}}, `VMBRIDGE_PORTS_DENY: ports.deny[1]: must not be empty`},
		{Sources{Environ: []string{"VMBRIDGE_PORTS_DENY=[22"}}, `VMBRIDGE_PORTS_DENY: ports.deny: not YAML: did not find expected ',' or ']'`},
		{Sources{Environ: []string{"VMBRIDGE_PORTS_DENY= "}}, `VMBRIDGE_PORTS_DENY: ports.deny: must be a list, not empty`},
		{Sources{Environ: []string{"VMBRIDGE_LINKS=a=unix:///a,a/b=unix:///b"}}, ``},
		{Sources{Environ: []string{"VMBRIDGE_LINKS=a/b=unix:///b"}}, `VMBRIDGE_LINKS: links[0]: link name "a/b": must be letters, digits, dots, dashes and underscores, 63 at most`},
		{Sources{Flags: []Flag{{"--enable", "host_networking.enabled", "yes"}}}, `--enable: host_networking.enabled: must be true or false, not "yes"`},
		{Sources{Flags: []Flag{{"--rules", "ports.rules", "{port: 80}"}}}, `--rules: ports.rules: must be a list, not a mapping`},
		{Sources{Flags: []Flag{{"--x", "exposur", "mirror"}}}, `--x: "exposur": unknown key: did you mean exposure?`},
	} {
		_, err := Open(test.sources)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test.sources, err)
		case test.want != "" && (err == nil || err.Error() != test.want):
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

// G1: off by default, and nothing else differs from what the table says.
func TestDefaults(t *testing.T) {
	for name, path := range map[string]string{
		"no file":       "",
		"empty":         write(t, ""),
		"comments only": write(t, "# nothing yet\n"),
		"null":          write(t, "---\n"),
		"empty groups":  write(t, "host_networking:\n  # enabled: true\nports:\nhost_reach: ~\n"),
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, Sources{Path: path}).Effective()
			if !reflect.DeepEqual(e.Settings, Default()) {
				t.Errorf("got %+v, want the defaults", e.Settings)
			}
			if e.HostNetworking.Enabled {
				t.Error("host networking is on by default")
			}
		})
	}
	want := map[string]string{
		"ports.ignore":           "[22/tcp, 4789/udp, 8472/udp, 53, 67, 68, 111, 123, 323, 546, 547, 5353, 5355]",
		"ports.ignore_processes": "[dockerd, containerd, kubelet, sshd, sshd-session, systemd-*, chronyd, rpcbind, dnsmasq]",
		"ports.allow":            "all", "ports.deny": "[]", "ports.rules": "[]", "links": "[]",
		"limits.listeners": "20000", "limits.flows": "32768", "limits.udp_idle": "180s", "limits.memory": "256MiB",
	}
	for _, k := range Keys() {
		if w, ok := want[k.Key]; ok && w != k.Default {
			t.Errorf("%s: default %s, want %s", k.Key, k.Default, w)
		}
	}
}
