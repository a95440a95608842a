package settings

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// samples has two values of each key, neither of which is the default, in the
// form that Value has them in.
var samples = map[string][2]string{
	"host_networking.enabled": {"true", "true"},
	"exposure":                {"loopback", "loopback"},
	"localhost_twin":          {other(Default().LocalhostTwin), other(Default().LocalhostTwin)},
	"ports.ignore":            {"[22/tcp, 8000-8010]", "[]"},
	"ports.ignore_processes":  {"[sshd, 'x?[ab]*']", `["null"]`},
	"ports.allow":             {"[80/tcp, 5000-5999]", "[]"},
	"ports.deny":              {"[53/udp]", "[1-65535]"},
	"ports.rules": {"[{protocol: tcp, guest_address: 10.0.0.1, port: 80-81, container: web*, image: 'a/*:1', process: nginx, host_address: 127.0.0.1, host_port: 8080-8081}]",
		"[{process: mysqld, action: ignore}, {port: 5432, action: forward}]"},
	"host_reach.enabled":                     {"false", "false"},
	"host_reach.allow":                       {"[]", "[443/tcp]"},
	"host_reach.deny":                        {"[5432]", "[1/udp, 1/tcp]"},
	"links":                                  {"[{name: a, url: 'vsock://3:732'}, {name: b, url: 'exec:ssh -o a=1,b=2 vm'}]", "[{name: c, url: 'unix:///x, y'}]"},
	"limits.listeners":                       {"1", "200000"},
	"limits.flows":                           {"10", "1000000"},
	"limits.udp_idle":                        {"1.5s", "24h"},
	"limits.memory":                          {"16385KiB", "64GiB"},
	"isolation.enhanced_container_isolation": {"true", "true"},
}

func other(b bool) string {
	if b {
		return "false"
	}
	return "true"
}

// write puts a settings file into a directory of its own.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writePolicy puts a policy file where only root can have written it.
func writePolicy(t testing.TB, text string) string {
	t.Helper()
	if runtime.GOOS == "windows" || os.Geteuid() != 0 {
		t.Skip("a policy file has to be root's")
	}
	path := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, sources Sources) *Store {
	t.Helper()
	s, err := Open(sources)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// yamlFor is a settings file with one value, on its last line.
func yamlFor(name, text string) string {
	group, rest, nested := strings.Cut(name, ".")
	if nested {
		return group + ":\n  " + rest + ": " + text + "\n"
	}
	return name + ": " + text + "\n"
}

// policyFor is a policy file with one value.
func policyFor(t testing.TB, name, text string, locked bool) string {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{name: map[string]any{"locked": locked, "value": v}})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func rewrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
