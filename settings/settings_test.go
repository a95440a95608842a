package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadDefaults(t *testing.T) {
	for name, path := range map[string]string{
		"no file":       filepath.Join(t.TempDir(), "none.yaml"),
		"empty":         write(t, ""),
		"comments only": write(t, "# nothing yet\n"),
		"null":          write(t, "---\n"),
		"empty groups":  write(t, "host_networking:\n  # enabled: true\nports:\nhost_reach:\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s, Default()) {
				t.Errorf("got %+v, want the defaults", s)
			}
			if s.HostNetworking.Enabled { // G1
				t.Error("host networking is on by default")
			}
		})
	}
}

func TestLoadAll(t *testing.T) {
	path := write(t, `
host_networking:
  enabled: true
exposure: loopback
localhost_twin: true
ports:
  ignore: [22, 5353/udp, 8000-8010/tcp]
host_reach:
  enabled: false
  allow: [80/tcp, 5000-5999]
  deny: [5432]
links:
  - name: default
    url: "vsock://3:732"
  - {name: lab.2, url: exec:ssh vm vmbridge-guest serve --stdio}
`)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		HostNetworking: HostNetworking{Enabled: true},
		Exposure:       Loopback,
		LocalhostTwin:  true,
		Ports: Ports{Ignore: []PortRange{
			{First: 22, Last: 22},
			{Protocol: "udp", First: 5353, Last: 5353},
			{Protocol: "tcp", First: 8000, Last: 8010},
		}},
		HostReach: HostReach{
			Allow: []PortRange{{Protocol: "tcp", First: 80, Last: 80}, {First: 5000, Last: 5999}},
			Deny:  []PortRange{{First: 5432, Last: 5432}},
		},
		Links: []Link{
			{Name: "default", URL: "vsock://3:732"},
			{Name: "lab.2", URL: "exec:ssh vm vmbridge-guest serve --stdio"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// An ignore list that is there and empty ignores nothing; one that is not
// there leaves the choice to the built-in list.
func TestIgnoreNothing(t *testing.T) {
	s, err := Load(write(t, "ports: {ignore: []}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Ports.Ignore == nil || len(s.Ports.Ignore) != 0 {
		t.Errorf("got %#v, want an empty list that is not nil", s.Ports.Ignore)
	}
}

// F9: guests may reach every port of the host's loopback unless the file says
// otherwise; an empty list of what they may reach is none.
func TestHostReachPorts(t *testing.T) {
	for _, test := range []struct {
		text string
		want HostReach
	}{
		{"", HostReach{Enabled: true}},
		{"host_reach: {deny: [22/tcp]}\n", HostReach{Enabled: true, Deny: []PortRange{{Protocol: "tcp", First: 22, Last: 22}}}},
		{"host_reach: {allow: []}\n", HostReach{Enabled: true, Allow: []PortRange{}}},
		{"host_reach: {enabled: false}\n", HostReach{}},
	} {
		s, err := Load(write(t, test.text))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.HostReach, test.want) {
			t.Errorf("%q: got %#v, want %#v", test.text, s.HostReach, test.want)
		}
	}
}

// G1: a bad settings file is a clear error naming file, line and key.
func TestLoadMistakes(t *testing.T) {
	for _, test := range []struct {
		name, text string
		line       int
		key, says  string
	}{
		{"unknown key", "exposure: mirror\nexposed: all\n", 2, "exposed", "unknown key"},
		{"unknown nested key", "host_networking:\n  enable: true\n", 2, "host_networking.enable", "known here: enabled"},
		{"wrong type", "host_networking:\n  enabled: maybe\n", 2, "host_networking.enabled", `true or false, not "maybe"`},
		{"quoted boolean", "localhost_twin: \"true\"\n", 1, "localhost_twin", "true or false"},
		{"list for boolean", "localhost_twin: [true]\n", 1, "localhost_twin", "not a list"},
		{"wrong word", "\nexposure: wide\n", 2, "exposure", `mirror or loopback, not "wide"`},
		{"scalar for group", "ports: 22\n", 1, "ports", "mapping"},
		{"twice", "exposure: mirror\nexposure: loopback\n", 2, "exposure", "twice"},
		{"bad port", "ports:\n  ignore:\n    - 22\n    - 70000\n", 4, "ports.ignore[1]", "70000"},
		{"scalar for list", "ports:\n  ignore: 22\n", 2, "ports.ignore", "must be a list"},
		{"host reach as a switch", "host_reach: true\n", 1, "host_reach", "mapping"},
		{"host reach's own switch", "host_reach:\n  enabled: yes please\n", 2, "host_reach.enabled", "true or false"},
		{"unknown key of host reach", "host_reach:\n  ports: [80]\n", 2, "host_reach.ports", "known here: allow, deny, enabled"},
		{"bad allowed port", "host_reach:\n  allow: [80, 0]\n", 2, "host_reach.allow[1]", "PORT-PORT"},
		{"bad denied range", "host_reach:\n  deny:\n    - 90-80/tcp\n", 3, "host_reach.deny[0]", "90-80/tcp"},
		{"nothing allowed", "host_reach:\n  allow:\n", 2, "host_reach.allow", "must be a list, not empty"},
		{"link without url", "links:\n  - name: a\n", 2, "links[0]", "name and a url"},
		{"link with unknown key", "links:\n  - name: a\n    uri: b\n", 3, "links[0]", "uri: unknown key"},
		{"bad link name", "links:\n  - name: ../a\n    url: b\n", 2, "links[0]", "link name"},
		{"links of one name", "links:\n  - {name: a, url: b}\n  - {name: a, url: c}\n", 3, "links[1]", "twice"},
		{"syntax", "exposure: mirror\nports: [22\n", 1, "", "here or on the next line"},
		{"not a mapping", "- a\n", 1, "", "mapping"},
		{"two documents", "exposure: mirror\n---\nexposure: loopback\n", 0, "", "more than one document"},
		{"binary", "\x00\x01", 0, "", ""},
		{"self-reference", "links: &x [*x]\n", 1, "links[0]", "not a list"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.text)
			_, err := Load(path)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Path != path || e.Line != test.line || e.Key != test.key || !strings.Contains(e.Err.Error(), test.says) {
				t.Errorf("got %q (line %d, key %q)", e, e.Line, e.Key)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(dir)
	var e *Error
	if !errors.As(err, &e) || e.Path != dir {
		t.Errorf("got %v, want an *Error about %s", err, dir)
	}
}

func TestLoadHuge(t *testing.T) {
	if _, err := Load(write(t, strings.Repeat("#\n", maxFile))); err == nil {
		t.Error("a file of 2 MiB was taken")
	}
}

// Whatever the file holds, Load returns, and where SetEnabled edits it, nothing
// else changes.
func FuzzLoad(f *testing.F) {
	f.Add("host_networking:\n  enabled: true # on\nlinks:\n- {name: a, url: 'b'}\n")
	f.Add("ports: {ignore: [1-2/tcp]}\n")
	f.Add("host_networking: &h\n  enabled: &e false\nlocalhost_twin: *e\n")
	f.Add("a: &a [*a]\n")
	f.Add("? [a]\n: b\n")
	dir := f.TempDir()
	path := filepath.Join(dir, FileName)
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := Load(path)
		if err != nil {
			return
		}
		if err := SetEnabled(path, true); err == nil {
			want.HostNetworking.Enabled = true
		}
		got, err := Load(path)
		if err != nil {
			t.Fatalf("cannot load what SetEnabled left: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("not what was asked for:\n got %+v\nwant %+v", got, want)
		}
	})
}
