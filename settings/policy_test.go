package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/settings/trust"
)

// G2: what the administrator locks stands, whatever the user says anywhere.
func TestPolicyLocks(t *testing.T) {
	for name, text := range map[string]string{
		"flat":   `{"host_networking.enabled": {"locked": true, "value": false}, "ports.deny": {"value": [22, "80/tcp"], "locked": true}, "exposure": {"locked": true, "value": "loopback"}}`,
		"nested": `{"host_networking": {"enabled": {"locked": true, "value": false}}, "ports": {"deny": {"value": [22, "80/tcp"], "locked": true}}, "exposure": {"locked": true, "value": "loopback"}}`,
		"marked": "\xef\xbb\xbf" + `{"host_networking.enabled": {"locked": true, "value": false}, "ports": {"deny": {"value": [22, "80\/tcp"], "locked": true}}, "exposure": {"locked": true, "value": "loopback"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := writePolicy(t, text)
			file := write(t, "host_networking: {enabled: true}\nexposure: mirror\n")
			s := open(t, Sources{Path: file, Policy: path,
				Environ: []string{"VMBRIDGE_EXPOSURE=mirror"}, Flags: []Flag{{"--enable", "host_networking.enabled", "true"}}})
			e := s.Effective()
			if e.PolicyError != nil || e.PolicyPath != path {
				t.Fatalf("policy %s: %v", e.PolicyPath, e.PolicyError)
			}
			if e.HostNetworking.Enabled || e.Exposure != Loopback || !reflect.DeepEqual(e.Ports.Deny, []PortRange{{"", 22, 22}, {"tcp", 80, 80}}) {
				t.Errorf("in force: %+v", e.Settings)
			}
			before := read(t, file)
			for _, key := range []string{"host_networking.enabled", "ports.deny", "exposure"} {
				for what, err := range map[string]error{"set": s.Set(key, samples[key][0]), "unset": s.Unset(key)} {
					var locked *LockedError
					if !errors.As(err, &locked) || locked.Key != key || locked.PolicyPath != path ||
						err.Error() != key+" is locked by the administrator's policy in "+path {
						t.Errorf("%s %s: %v", what, key, err)
					}
				}
			}
			if read(t, file) != before {
				t.Error("the file was changed")
			}
			if err := s.Set("host_reach.enabled", "false"); err != nil {
				t.Errorf("what is not locked: %v", err)
			}
			// A lock that is put on while the program runs counts for the next Set.
			rewrite(t, path, `{"host_reach.enabled": {"locked": true, "value": true}}`)
			if err := s.Set("host_reach.enabled", "false"); !errors.As(err, new(*LockedError)) {
				t.Errorf("locked since: %v", err)
			}
			if err := s.Set("exposure", "loopback"); err != nil {
				t.Errorf("free again: %v", err)
			}
		})
	}
}

// The administrator may also turn host networking on.
func TestPolicyForcesOn(t *testing.T) {
	s := open(t, Sources{Path: write(t, ""), Policy: writePolicy(t, `{"host_networking.enabled": {"locked": true, "value": true}}`)})
	if !s.Effective().HostNetworking.Enabled {
		t.Error("it is off")
	}
	if err := s.Set("host_networking.enabled", "false"); !errors.As(err, new(*LockedError)) {
		t.Errorf("set: %v", err)
	}
}

func TestNoPolicy(t *testing.T) {
	dir := filepath.Dir(writePolicy(t, ""))
	for _, path := range []string{"", filepath.Join(dir, "none.json"), filepath.Join(dir, "no", "where.json")} {
		e := open(t, Sources{Path: write(t, "host_networking: {enabled: true}\n"), Policy: path}).Effective()
		if e.PolicyError != nil || !e.HostNetworking.Enabled {
			t.Errorf("%q: %v, on: %t", path, e.PolicyError, e.HostNetworking.Enabled)
		}
	}
}

// failsClosed asserts that nothing turns host networking on under sources, and
// gives the reason.
func failsClosed(t *testing.T, policy string) error {
	t.Helper()
	s := open(t, Sources{Path: write(t, "host_networking: {enabled: true}\n"), Policy: policy,
		Environ: []string{"VMBRIDGE_HOST_NETWORKING_ENABLED=true"},
		Flags:   []Flag{{"--enable", "host_networking.enabled", "true"}}})
	e := s.Effective()
	if e.PolicyError == nil || e.HostNetworking.Enabled {
		t.Fatalf("error %v, on: %t", e.PolicyError, e.HostNetworking.Enabled)
	}
	v := e.Value(enabledKey)
	if v.Value != "false" || v.Origin != OriginPolicy || v.Place != policy || !v.Locked {
		t.Errorf("%+v", v)
	}
	err := s.Set(enabledKey, "true")
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PolicyPath != policy || errors.Unwrap(err) == nil ||
		err.Error() != "host_networking.enabled is locked, because the administrator's policy cannot be used: "+e.PolicyError.Error() {
		t.Errorf("set: %v", err)
	}
	if err := s.Set("exposure", "loopback"); err != nil {
		t.Errorf("another key: %v", err)
	}
	return e.PolicyError
}

// G2: a policy that is not right in every detail turns host networking off and
// says why.
func TestBrokenPolicy(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, `:1: not JSON: unexpected end of JSON input`},
		{"{\n\"exposure\":\n", `:3: not JSON: unexpected end of JSON input`},
		{"{\n\"exposure\": {\"locked\": true, \"value\": \"mirror\"},\n}", `:3: not JSON: invalid character '}' looking for beginning of object key string`},
		{"exposure: mirror\n", `:1: not JSON: invalid character 'e' looking for beginning of value`},
		{"{} {}", `:1: not JSON: invalid character '{' after top-level value`},
		{"\"\xff\"", `: not JSON, since it is not UTF-8`},
		{`[]`, `:1: must be a mapping of keys to values, not a list`},
		{`null`, `:1: must be a mapping of keys to values, not empty`},
		{"{\n\"exposrue\": {\"locked\": true, \"value\": \"mirror\"}}", `:2: exposrue: unknown key: did you mean exposure?`},
		{`{"hostNetworkingEnabled": {"locked": true, "value": true}}`, `:1: hostNetworkingEnabled: unknown key: did you mean host_networking.enabled?`},
		{`{"EXPOSURE": {"locked": true, "value": "mirror"}}`, `:1: EXPOSURE: unknown key: did you mean exposure?`},
		{`{"ports": {"deni": {"locked": true, "value": []}}}`, `:1: ports.deni: unknown key: did you mean ports.deny?`},
		{`{"ports": null}`, `:1: ports: must be a mapping of keys to values, not empty`},
		{`{"exposure": "mirror"}`, `:1: exposure: must be a mapping of locked, value, not the text "mirror"`},
		{`{"exposure": {"locked": true}}`, `:1: exposure: has no "value"`},
		{`{"exposure": {"value": "mirror"}}`, `:1: exposure: has no "locked"`},
		{`{"exposure": {}}`, `:1: exposure: has no "locked"`},
		{"{\"exposure\": {\"locked\": true,\n\"value\": \"mirror\",\n\"comment\": \"x\"}}", `:3: exposure.comment: unknown key: known here: locked, value`},
		{`{"exposure": {"Locked": true, "value": "mirror"}}`, `:1: exposure.Locked: unknown key: did you mean locked?`},
		{`{"exposure": {"locked": "true", "value": "mirror"}}`, `:1: exposure.locked: must be true or false, not the text "true"`},
		{`{"exposure": {"locked": 1, "value": "mirror"}}`, `:1: exposure.locked: must be true or false, not "1"`},
		{`{"exposure": {"locked": true, "value": "wide"}}`, `:1: exposure: must be mirror or loopback, not the text "wide"`},
		{`{"exposure": {"locked": true, "value": null}}`, `:1: exposure: must be mirror or loopback, not empty`},
		{`{"host_networking.enabled": {"locked": true, "value": "false"}}`, `:1: host_networking.enabled: must be true or false, not the text "false"`},
		{`{"limits.flows": {"locked": true, "value": 1e3}}`, `:1: limits.flows: must be a whole number from 1 to 1000000, not "1e3"`},
		{"{\"ports.deny\": {\"locked\": true, \"value\": [22,\n70000]}}", `:2: ports.deny[1]: 70000 is no port: ports are 1 to 65535`},
		{`{"ports.rules": {"locked": true, "value": [{"port": 80}]}}`, `:1: ports.rules[0]: must say what to do: action, host_address or host_port`},
		{"{\"exposure\": {\"locked\": true, \"value\": \"mirror\"},\n\"exposure\": {\"locked\": false, \"value\": \"loopback\"}}", `:2: exposure: appears twice`},
		{"{\"ports.deny\": {\"locked\": true, \"value\": []},\n\"ports\": {\"deny\": {\"locked\": false, \"value\": []}}}", `:2: ports.deny: appears twice`},
		{`{"exposure": {"locked": true, "locked": false, "value": "mirror"}}`, `:1: exposure.locked: appears twice`},
	} {
		t.Run("", func(t *testing.T) {
			path := writePolicy(t, test.text)
			err := failsClosed(t, path)
			if err.Error() != path+test.want {
				t.Errorf("%s\n got %s\nwant %s", test.text, strings.TrimPrefix(err.Error(), path), test.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != path {
				t.Errorf("%#v is no *Error about the policy", err)
			}
		})
	}
}

// G2: a policy that ordinary users could have written is none of the
// administrator's.
func TestPolicyOfAnother(t *testing.T) {
	const text = `{"host_networking.enabled": {"locked": true, "value": true}}`
	for name, spoil := range map[string]func(path string) error{
		"owner":     func(path string) error { return os.Chown(path, 1000, 0) },
		"mode":      func(path string) error { return os.Chmod(path, 0o666) },
		"directory": func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			path := writePolicy(t, text)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			var e *trust.Error
			if err := failsClosed(t, path); !errors.As(err, &e) {
				t.Errorf("got %v, want a *trust.Error", err)
			}
		})
	}
}

func TestUnreadablePolicy(t *testing.T) {
	path := writePolicy(t, "{}")
	remove(t, path)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := failsClosed(t, path); strings.Count(err.Error(), path) != 1 {
		t.Errorf("got %v, want the path once", err)
	}
	long := writePolicy(t, strings.Repeat(" ", maxFile)+"{}")
	failsClosed(t, long)
}

func TestPolicyPath(t *testing.T) {
	t.Setenv("ProgramData", "/elsewhere")
	want := map[string]string{
		"linux": "/etc/vmbridge/policy.json", "windows": `C:\ProgramData\vmbridge\policy.json`,
		"darwin": "/Library/Application Support/vmbridge/policy.json",
	}[runtime.GOOS]
	if got := PolicyPath(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
