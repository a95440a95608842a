package dockerapi

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// environment is one of a test: variables as NAME=VALUE.
func environment(home, goos string, uid int, variables ...string) Environment {
	return Environment{Home: home, OS: goos, UID: uid, Getenv: func(name string) string {
		for _, v := range slices.Backward(variables) {
			if n, value, _ := strings.Cut(v, "="); n == name {
				return value
			}
		}
		return ""
	}}
}

// writeContext makes a context as "docker context create" does: in a directory that is
// named by the SHA-256 of its name.
func writeContext(t *testing.T, config, name, host string) {
	t.Helper()
	dir := filepath.Join(config, "contexts", "meta", fmt.Sprintf("%x", sha256.Sum256([]byte(name))))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host)
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOrder: what a user has named comes first, in the order of the command docker,
// and then nothing else is tried.
func TestOrder(t *testing.T) {
	home := t.TempDir()
	config := filepath.Join(home, ".docker")
	writeContext(t, config, "remote", "tcp://192.0.2.1:2376")
	writeContext(t, config, "desktop-linux", "unix:///desktop.sock")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"auths":{"x":{}},"currentContext":"desktop-linux"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		name      string
		home      string
		context   string
		variables []string
		hosts     string // of the first candidates
		passed    string // part of what was passed over
		problem   string
	}{
		{name: "named", home: home, context: "remote", variables: []string{"DOCKER_HOST=tcp://x:1"}, hosts: "tcp://192.0.2.1:2376"},
		{name: "named and missing", home: home, context: "nope", problem: "context nope cannot be read"},
		{name: "DOCKER_HOST", home: home, variables: []string{"DOCKER_HOST=tcp://x:1", "DOCKER_CONTEXT=remote"}, hosts: "tcp://x:1"},
		{name: "DOCKER_HOST is none", home: home, variables: []string{"DOCKER_HOST=x:1"}, problem: "has no scheme"},
		{name: "ssh", home: home, variables: []string{"DOCKER_HOST=ssh://me@vm"}, hosts: "ssh://me@vm"},
		{name: "DOCKER_CONTEXT", home: home, variables: []string{"DOCKER_CONTEXT=remote"}, hosts: "tcp://192.0.2.1:2376", passed: "DOCKER_HOST: not set"},
		{name: "DOCKER_CONTEXT is missing", home: home, variables: []string{"DOCKER_CONTEXT=nope"}, problem: "DOCKER_CONTEXT nope cannot be read"},
		{name: "current context", home: home, hosts: "unix:///desktop.sock", passed: "DOCKER_CONTEXT: not set"},
		{name: "default named", home: home, context: "default", hosts: "unix:///var/run/docker.sock"},
		{name: "default in DOCKER_CONTEXT", home: home, variables: []string{"DOCKER_CONTEXT=default"}, hosts: "unix:///var/run/docker.sock"},
		{name: "DOCKER_CONFIG", home: home, variables: []string{"DOCKER_CONFIG=" + empty}, hosts: "unix:///var/run/docker.sock",
			passed: "current context: none is chosen in " + empty},
		{name: "nothing", home: empty, hosts: "unix:///var/run/docker.sock", passed: "current context: none is chosen"},
	} {
		env := environment(c.home, "linux", 1000, c.variables...)
		list, passed, err := env.candidates(c.context)
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%s: %v, want %q", c.name, err, c.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if list[0].host != c.hosts {
			t.Errorf("%s: %s, want %s", c.name, list[0].host, c.hosts)
		}
		if named := c.hosts != "unix:///var/run/docker.sock"; list[0].named != named || named && len(list) != 1 {
			t.Errorf("%s: %d candidates, named %v", c.name, len(list), list[0].named)
		}
		if !strings.Contains(strings.Join(passed, "\n"), c.passed) {
			t.Errorf("%s: passed %q, want %q", c.name, passed, c.passed)
		}
	}
}

// TestCurrentContextDamaged: a configuration that cannot be read is passed over, and
// said.
func TestCurrentContextDamaged(t *testing.T) {
	home := t.TempDir()
	for _, text := range []string{"", "{", "[]", `{"currentContext":5}`, strings.Repeat(" ", maxConfig+1) + "{}"} {
		config := filepath.Join(home, ".docker")
		if err := os.MkdirAll(config, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, passed, err := environment(home, "darwin", 501).candidates("")
		if err != nil || len(list) < 3 || len(passed) != 3 || !strings.HasPrefix(passed[2], "current context: ") {
			t.Errorf("%.20q: %d candidates, passed %q, %v", text, len(list), passed, err)
		}
	}
}

// TestSockets: where products have their sockets, on each system. Those of engines
// without root come last.
func TestSockets(t *testing.T) {
	for _, c := range []struct {
		env  Environment
		want []string
	}{
		{environment("/Users/me", "darwin", 501), []string{
			"unix:///var/run/docker.sock", "unix:///Users/me/.docker/run/docker.sock", "unix:///Users/me/.orbstack/run/docker.sock",
			"unix:///Users/me/.rd/docker.sock", "unix:///Users/me/.colima/default/docker.sock", "unix:///Users/me/.lima/docker/sock/docker.sock",
			"unix:///Users/me/.local/share/containers/podman/machine/podman.sock"}},
		{environment("/home/me", "linux", 1000), []string{
			"unix:///var/run/docker.sock", "unix:///home/me/.docker/run/docker.sock", "unix:///home/me/.docker/desktop/docker.sock",
			"unix:///home/me/.rd/docker.sock", "unix:///home/me/.colima/default/docker.sock", "unix:///home/me/.lima/docker/sock/docker.sock",
			"unix:///run/podman/podman.sock", "unix:///run/user/1000/docker.sock", "unix:///run/user/1000/podman/podman.sock"}},
		{environment("", "linux", 0, "XDG_RUNTIME_DIR=/run/user/0"), []string{"unix:///var/run/docker.sock", "unix:///run/podman/podman.sock"}},
		{environment(`C:\Users\me`, "windows", -1), []string{
			"npipe:////./pipe/docker_engine", "npipe:////./pipe/dockerDesktopLinuxEngine", "npipe:////./pipe/podman-machine-default"}},
	} {
		var got []string
		for _, s := range c.env.sockets() {
			got = append(got, s.host)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.env.OS, got, c.want)
		}
	}
}
