package acceptance

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestReachDocker holds the rows of host reach that are about containers, on one
// engine.
func TestReachDocker(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	b.need("redis-cli")
	b.startRedis("6379")
	e := b.startEngine(engineConfig{programs: []string{"redis-cli"}})
	for _, sub := range []struct {
		name string
		test func(*testing.T, *engine)
	}{
		{"F1Redis", testRedisFromContainer},
		{"F1Netcat", testNetcatFromContainer},
		{"F3", testContainerFirst},
		{"G6Seccomp", testReachUnderSeccomp},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(t, e.in(t)) })
	}
}

// client runs a program in a container of the guest's network to its end.
func (e *engine) client(stdin string, flags []string, args ...string) (string, error) {
	e.b.t.Helper()
	all := append([]string{"run", "--rm", "--interactive", "--net=host"}, flags...)
	cmd := e.command(append(append(all, image), args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := runFor(e.b.guest, patience, cmd)
	return strings.TrimSuffix(out, "\n"), err
}

// F1: redis-cli in a container talks to redis-server on the host.
func testRedisFromContainer(t *testing.T, e *engine) {
	value := strings.ReplaceAll(fmt.Sprintf("%x", traffic.Noise(1<<19)), "\n", "")
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		for _, c := range []struct {
			stdin string
			args  []string
			want  string
		}{
			{"", []string{"PING"}, "PONG"},
			{value, []string{"-x", "SET", "key"}, "OK"},
			{"", []string{"GET", "key"}, value},
		} {
			out, err := e.client(c.stdin, nil, append([]string{"redis-cli", "-h", host}, c.args...)...)
			if err != nil || out != c.want {
				t.Errorf("redis-cli -h %s %v: %.60q (%d bytes), %v", host, c.args, out, len(out), err)
			}
		}
	}
	out, err := e.client("", nil, "redis-cli", "-p", "6380", "PING")
	if err == nil || !strings.Contains(out+err.Error(), "Connection refused") {
		t.Errorf("redis-cli of a closed port: %s, %v", out, err)
	}
}

// F1: nc localhost PORT in a container, both protocols and families.
func testNetcatFromContainer(t *testing.T, e *engine) {
	b := e.b
	for i, address := range []string{"127.0.0.1", "::1"} {
		for j, flags := range []string{"-nlv", "-nluv"} {
			port := fmt.Sprint(7000 + 2*i + j)
			server := b.nc(b.host, flags, address, port)
			server.says(map[string]string{"-nlv": "Listening", "-nluv": "Bound"}[flags])
			args := []string{"run", "--rm", "-i", "--net=host", image, "nc", address, port}
			if j == 1 {
				args = append(args[:6], "-u", address, port)
			}
			client := b.talk(b.guest, e.command(args...))
			talk.Chat(client, server, "container")
			server.kill()
			client.kill()
		}
	}
}

// F3: a server in one container is met by the clients in others, not the host's.
func testContainerFirst(t *testing.T, e *engine) {
	h := greet(t, here{e.b.host}, socket.Spec{Network: "tcp", Address: "[::]:" + containerPort}, "host")
	out, err := e.client("", nil, "nc", "-d", "localhost", containerPort)
	if err != nil || out != "host" {
		t.Fatalf("without a server of the guest: %q, %v", out, err)
	}
	h.greeted.Store(0)
	e.container("first", image, "server", "tcp4", "127.0.0.1", containerPort, containerPort)
	e.b.view.port("tcp 127.0.0.1:"+containerPort, control.PortConflict)
	out, err = e.client("guest", nil, "nc", "-N", "127.0.0.1", containerPort)
	if err != nil || out != "guest" {
		t.Errorf("with one: %q, %v", out, err)
	}
	e.run(nil, "rm", "--force", "first")
	out, err = e.client("", nil, "nc", "-d", "localhost", containerPort)
	if err != nil || out != "host" {
		t.Errorf("without it again: %q, %v", out, err)
	}
	if n := h.greeted.Load(); n != 1 {
		t.Errorf("the host's server had %d clients, want 1", n)
	}
}

// G6: containers under seccomp and with no new privileges reach the host as
// others do.
func testReachUnderSeccomp(t *testing.T, e *engine) {
	info := e.run(nil, "info", "--format", "{{.SecurityOptions}}")
	if !strings.Contains(info, "seccomp") {
		t.Skipf("the engine has no seccomp: %s", info)
	}
	for _, flags := range [][]string{
		nil, // the profile that the engine has by default
		{"--security-opt", "no-new-privileges"},
		{"--security-opt", "seccomp=unconfined"},
		{"--cap-drop", "ALL", "--user", "65534", "--read-only"},
	} {
		out, err := e.client("", append(flags, "--name", "confined"), "redis-cli", "PING")
		if err != nil || out != "PONG" {
			t.Errorf("%v: %q, %v", flags, out, err)
		}
	}
}

// F6: a container on the engine's bridge, with masquerading, does not reach the
// host: not by its own localhost, not by the guest's addresses, and not by the
// host's.
func TestF6DockerBridge(t *testing.T) {
	t.Parallel()
	b := startReach(t, bedConfig{})
	const gateway = "10.199.0.1"
	e := b.startEngine(engineConfig{bridge: gateway + "/24"})
	b.hostEchoes("0.0.0.0:7000", "[::]:7000")
	b.spawnServer("7001")
	connects := func(network, address, port string) error {
		out, err := runFor(b.guest, patience, e.command("run", "--rm", "--network", network, image,
			"nc", "-zvw", "2", address, port))
		if err != nil {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	}
	if err := connects("bridge", gateway, "7001"); err != nil {
		t.Fatalf("a container on the bridge does not reach the guest: %v", err)
	}
	if err := connects("host", "127.0.0.1", "7000"); err != nil {
		t.Fatalf("a container of the guest's network does not reach the host: %v", err)
	}
	rules, err := runFor(b.guest, patience, exec.Command(b.need("iptables"), "-t", "nat", "-S"))
	must(t, err)
	if !strings.Contains(rules, "MASQUERADE") {
		t.Errorf("the engine does not masquerade: %s", rules)
	}
	addresses := []string{"127.0.0.1", "::1", gateway}
	for _, a := range b.hostAddresses() {
		addresses = append(addresses, a.String())
	}
	must(t, wait.Together(len(addresses), func(i int) error {
		if err := connects("bridge", addresses[i], "7000"); err == nil {
			return fmt.Errorf("a container on the bridge connects to %s", addresses[i])
		}
		return nil
	}))
	reached, err := b.reached()
	must(t, err)
	if len(reached) != 1 || reached[0].State != "open" {
		t.Errorf("the guest has used %+v, want the one connection of its own network", reached)
	}
	b.awaitHostReach(control.On)
}
