package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// awaitDown waits until the link says that it is down, and why, and that its reason
// is one line.
func (b *bed) awaitDown(says ...string) {
	b.t.Helper()
	wait.Eventually(b.t, patience, fmt.Sprintf("the link is down: %q", says), func() error {
		s, err := b.status()
		if err != nil {
			return err
		}
		l := s.Links[0]
		for _, text := range says {
			if l.State != control.LinkDown || !strings.Contains(l.Reason, text) || strings.Contains(l.Reason, "\n") {
				return fmt.Errorf("it is %s: %s", l.State, l.Reason)
			}
		}
		return nil
	})
}

// Two daemons, each with its own home, want the same engine's network: the first has
// it, and the second says so, ends nothing, and takes over when the first has gone.
func TestDockerLinkTwoDaemons(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	first := v.b
	first.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	first.startDaemon()
	first.reach("tcp", "127.0.0.1:7000")
	agent := v.agents()

	other := *first
	second := &other
	second.host, second.home = newNamespace(t), filepath.Join(first.dir, "home2")
	second.startDaemon()
	second.awaitDown("the agent of another vmbridge", "home "+hostName(t)+":"+first.home+", link vm")
	if now := v.agents(); now != agent {
		t.Errorf("the first's agent was %q, and now %q", agent, now)
	}
	must(t, try(first.host, "tcp", "127.0.0.1:7000"))
	if n := strings.Count(first.daemon.output(), `"link down`); n > 0 {
		t.Errorf("the first's link was down %d times", n)
	}
	first.daemon.terminate()
	second.reach("tcp", "127.0.0.1:7000")

	// One daemon with two links to one engine.
	third := *first
	third.host, third.home = newNamespace(t), filepath.Join(first.dir, "home3")
	second.daemon.terminate()
	third.config.flags = []string{"--link", "twin=docker://"}
	third.startDaemon()
	wait.Eventually(t, patience, "one of the two links is refused", func() error {
		s, err := third.status()
		if err != nil {
			return err
		}
		up, refused := 0, 0
		for _, l := range s.Links {
			if l.State == control.LinkUp {
				up++
			}
			if strings.Contains(l.Reason, "leads to it, too; remove one of the two") {
				refused++
			}
		}
		if up != 1 || refused != 1 {
			return fmt.Errorf("links: %+v", s.Links)
		}
		return nil
	})
}

// A container that happens to have the agent's name is nobody's to remove.
func TestDockerLinkNameTaken(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	b := v.b
	v.container("vmbridge-agent", image, "busybox", "sleep", "1000")
	b.startDaemon()
	b.awaitDown("has the agent's name and is not vmbridge's", "docker rename vmbridge-agent NAME")
	if state := v.run(nil, "inspect", "--format", "{{.State.Running}}", "vmbridge-agent"); state != "true" {
		t.Errorf("the container runs: %s", state)
	}
	v.run(nil, "rename", "vmbridge-agent", "mine")
	b.awaitLink()
}

// The VM's disk has no room for the agent: that is said, and once there is room the
// link comes up. What was there of older versions is removed then.
func TestDockerLinkDiskFull(t *testing.T) {
	t.Parallel()
	const large = "200m"
	v := newVM(t, bedConfig{}, vmConfig{prepare: `mkdir -p "$0/data"; mount -t tmpfs -o size=` + large + ` none "$0/data"`})
	b := v.b
	v.run(strings.NewReader(""), "import", "--change", "LABEL io.vmbridge.agent=old", "-", "localhost/vmbridge-agent:old")
	used := v.runInside("sh", "-ec", `set -- $(df -k "$0" | tail -1); echo $3`, filepath.Join(v.dir, "data"))
	v.runInside("mount", "-o", "remount,size="+used+"k", filepath.Join(v.dir, "data"))
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7000"})
	b.startDaemon()
	b.awaitDown("load the image of the agent", "no space left on device")
	v.runInside("mount", "-o", "remount,size="+large, filepath.Join(v.dir, "data"))
	b.reach("tcp", "127.0.0.1:7000")
	wait.Eventually(t, patience, "the old image is removed", func() error {
		if list := v.images(); len(list) != 1 || strings.Contains(list[0], ":old") {
			return fmt.Errorf("images: %q", list)
		}
		return nil
	})
}

// An engine whose API is too old, and one that is told to be newer than it is.
func TestDockerLinkAPIVersion(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	b := v.b
	// The engine itself, but for what it says of its version.
	engine := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(v.dir, "sock"))
		}},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Api-Version", "1.30")
			return nil
		},
	}
	old := filepath.Join(b.dir, "old.sock")
	l, err := net.Listen("unix", old)
	must(t, err)
	server := &http.Server{Handler: engine}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	environ := b.config.environ
	b.config.environ = append(environ, "DOCKER_HOST=unix://"+old)
	b.startDaemon()
	b.awaitDown("API version 1.30", "the minimum supported API version is", "upgrade the engine")
	b.daemon.terminate()

	b.config.environ = append(environ, "DOCKER_API_VERSION=1.99")
	b.startDaemon()
	b.awaitDown("client version 1.99 is too new")
	b.daemon.terminate()

	b.config.environ = append(environ, "DOCKER_API_VERSION=1.40") // the oldest that there is to be
	b.startDaemon()
	b.awaitLink()
}

// An engine that gives its containers a user namespace: host networking is blocked,
// and enabling it refused, with the evidence. Without, all is well.
func TestDockerLinkUserNamespace(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{fromFile: true}, vmConfig{
		flags: []string{"--userns-remap", "nobody:nogroup"},
		prepare: `for file in subuid subgid; do echo nobody:100000:65536 >"$0/$file"; echo nogroup:100000:65536 >>"$0/$file"
			mount --bind "$0/$file" /etc/$file; done`,
	})
	b := v.b
	served := b.serve("127.0.0.1:7000")
	b.startDaemon()
	evidence := []string{"guest of link vm", "the engine gives its containers a user namespace", "name=userns", "remove userns-remap"}
	b.awaitIsolation(control.Blocked, "on", evidence...)
	b.awaitDown("this engine isolates its containers", "name=userns")
	b.isRefused([]string{"enable"}, "guest of link vm", "name=userns")
	if list := v.agents(); list != "" {
		t.Errorf("it has an agent: %s", list)
	}
	b.view.never("tcp 127.0.0.1:7000")

	v.end(syscall.SIGTERM)
	v.config.flags = nil
	v.start()
	served.opens()
	b.awaitIsolation(control.On, "off", "guest of link vm")
}

// An engine that forbids privileged containers, by a plugin of whoever runs it.
func TestDockerLinkUnprivileged(t *testing.T) {
	t.Parallel()
	// What a plugin is asked and answers:
	// https://docs.docker.com/engine/extend/plugins_authorization/
	type question struct {
		RequestURI  string `json:"RequestUri"`
		RequestBody []byte
	}
	type answer struct {
		Allow bool
		Msg   string
	}
	plugin := http.NewServeMux()
	plugin.HandleFunc("/Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"Implements": []string{"authz"}})
	})
	plugin.HandleFunc("/AuthZPlugin.AuthZReq", func(w http.ResponseWriter, r *http.Request) {
		var q question
		_ = json.NewDecoder(r.Body).Decode(&q)
		_ = json.NewEncoder(w).Encode(answer{
			Allow: !strings.Contains(q.RequestURI, "/containers/create") || !strings.Contains(string(q.RequestBody), `"Privileged":true`),
			Msg:   "no privileged\ncontainers here",
		})
	})
	plugin.HandleFunc("/AuthZPlugin.AuthZRes", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answer{Allow: true})
	})
	dir := shortDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "plugin.sock"))
	must(t, err)
	server := &http.Server{Handler: plugin}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	v := newVM(t, bedConfig{fromFile: true}, vmConfig{
		flags:   []string{"--authorization-plugin", "guard"},
		prepare: "mkdir -p /run/docker/plugins; ln -s " + filepath.Join(dir, "plugin.sock") + " /run/docker/plugins/guard.sock",
	})
	b := v.b
	b.startDaemon()
	b.awaitIsolation(control.Blocked, "on", "the engine forbids the agent's container", "no privileged containers here")
	b.isRefused([]string{"enable"}, "no privileged containers here")
}

// An engine that is in no VM: its network is the daemon's own.
func TestDockerLinkOwnNetwork(t *testing.T) {
	t.Parallel()
	v := newVM(t, bedConfig{}, vmConfig{})
	b := v.b
	b.host = b.guest
	b.startDaemon()
	b.awaitDown("exit status 1", "this engine's network is that of the daemon itself")
}

// A build without agents says what makes them.
func TestDockerLinkNoAgents(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{transport: "docker"})
	overlay := filepath.Join(b.dir, "overlay.json")
	agents, err := filepath.Abs("../../hostside/agentbin/agents")
	must(t, err)
	carried, err := filepath.Glob(filepath.Join(agents, "*.gz"))
	must(t, err)
	replace := map[string]string{}
	for _, name := range carried {
		replace[name] = ""
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	must(t, err)
	must(t, os.WriteFile(overlay, text, 0o600))
	must(t, build(b.dir, false, []string{"-overlay", overlay, "./cmd/vmbridge"}))
	b.programs = b.dir
	_, err = b.vmbridge("up", "--link", "vm=docker://")
	if exit := (*exec.ExitError)(nil); err == nil || !errors.As(err, &exit) || exit.ExitCode() != 1 ||
		!strings.Contains(err.Error(), "vmbridge: up: link vm: this build carries no agents: make build makes them") {
		t.Errorf("got %v", err)
	}
}
