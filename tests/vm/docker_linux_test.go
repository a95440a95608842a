package vm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// image is what the engine's containers run: netcat-openbsd and the echo server.
const image = "tools"

// importImage makes the image of what the machine has.
const importImage = `cd / && tar -chf - --transform 's,^bin/nc.openbsd,bin/nc,;s,^usr/local/,,' \
	bin/nc.openbsd usr/local/bin/server $(ldd bin/nc.openbsd | grep -o '/[^ ]*' | sed 's,^/,,') | docker import - ` + image

// containerPort is where the containers' servers of some tests listen.
const containerPort = 9000

// testDocker holds the rows that are about containers, on one engine.
func testDocker(t *testing.T, s *system) {
	started := time.Now()
	s.run("systemctl", "start", "docker")
	t.Logf("the engine took %v", time.Since(started).Round(100*time.Millisecond))
	s.run("sh", "-c", importImage)
	for _, sub := range []struct {
		name string
		test func(*testing.T, *system)
	}{
		{"I1Netcat", testNetcatInContainer},
		{"F1Container", testContainerReaches},
		{"I2PublishedPorts", testPublishedPorts},
		{"C1Stop", testContainerStops},
		{"I4ManyPorts", testManyPorts},
		{"I3Swarm", testSwarm},
		{"C1EngineCrash", testEngineCrash}, // last
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(t, s.in(t)) })
	}
}

// container starts a container in the background with the machine's network.
func (s *system) container(name string, args ...string) {
	s.t.Helper()
	s.run(append([]string{"docker", "run", "--detach", "--net=host", "--name", name}, args...)...)
	s.t.Cleanup(func() { _, _ = s.try("docker", "rm", "--force", name) })
}

// serveInContainer starts an echo server, TCP and UDP, both families.
func (s *system) serveInContainer(name string, flags ...string) {
	s.t.Helper()
	port := fmt.Sprint(containerPort)
	s.container(name, append(flags, image, "server", "tcp", "::", port, port, "udp", "::", port, port)...)
	s.serves(containerPort)
}

// I1: docker run --rm -it --net=host IMAGE nc -lkv 0.0.0.0 8000 and nc localhost
// 8000 on the host: what is typed appears, both ways. The listing names the
// container.
func testNetcatInContainer(t *testing.T, s *system) {
	server := s.inGuest("script", "-qfc",
		"docker run --rm -it --net=host --name web "+image+" nc -lkv 0.0.0.0 8000", "/dev/null")
	s.open("tcp", 8000)
	for _, word := range []string{"first", "second"} { // -k: the server takes another one
		client := s.onHost(netcat, "localhost", "8000")
		talk.Chat(client, server, word)
		client.kill()
	}
	wait.Eventually(t, patience, "the listing names the container", func() error {
		out := s.vmbridge("ports", "--json")
		var ports []control.Port
		if err := json.Unmarshal([]byte(out), &ports); err != nil {
			return err
		}
		i := slices.IndexFunc(ports, func(p control.Port) bool { return p.Guest.Port == 8000 })
		if i < 0 || ports[i].Owner.Container != "web" || ports[i].Owner.Image != image || ports[i].Owner.Process != "nc" {
			return errors.New(out)
		}
		return nil
	})
	s.run("docker", "rm", "--force", "web")
	s.gone("tcp", 8000)
}

// F1: nc localhost in a container reaches a server of the host.
func testContainerReaches(t *testing.T, s *system) {
	for i, c := range []struct{ flag, address string }{{"-4", "127.0.0.1"}, {"-6u", "::1"}} {
		port := fmt.Sprint(8100 + i)
		server := s.onHost(netcat, "-nlv", c.flag, c.address, port)
		server.Shows(" on " + c.address)
		client := s.inGuest("docker", "run", "--rm", "-i", "--net=host", image, "nc", c.flag, "localhost", port)
		talk.Chat(client, server, c.flag)
	}
}

// I2: with --net=host Docker discards -p, and says so; what is forwarded is what
// the container listens on.
func testPublishedPorts(t *testing.T, s *system) {
	k := s.inGuest("docker", "run", "--rm", "--net=host", "--name", "published", "-p", "8080:80", image,
		"server", "tcp4", "0.0.0.0", "80", "80")
	s.open("tcp", 80)
	must(t, s.hello("tcp", "127.0.0.1:80"))
	if err := s.hello("tcp", "127.0.0.1:8080"); !refused(err) {
		t.Errorf("8080: %v", err)
	}
	k.Shows("Published ports are discarded")
	s.run("docker", "rm", "--force", "published")
	s.gone("tcp", 80)
}

// C1: containers that are stopped, killed, removed: the host's ports are free
// within 2 s of when Docker says so.
func testContainerStops(t *testing.T, s *system) {
	for _, end := range []struct {
		name  string
		flags []string
		args  []string
	}{
		{"stop", nil, []string{"stop", "--time", "0"}},
		{"kill", []string{"--rm"}, []string{"kill"}},
	} {
		s.serveInContainer(end.name, end.flags...)
		s.run(append(append([]string{"docker"}, end.args...), end.name)...)
		s.released(time.Now(), containerPort)
	}
}

// C1: the engine crashes, with everything that belongs to it. Another one serves
// again.
func testEngineCrash(_ *testing.T, s *system) {
	s.serveInContainer("crashes")
	s.run("systemctl", "kill", "--kill-whom=all", "--signal=KILL", "docker.service", "containerd.service")
	wait.Eventually(s.t, patience, "no container runs", func() error {
		// One that ends by itself meanwhile is gone when it is its turn, an error.
		_, killErr := s.try("systemctl", "kill", "--kill-whom=all", "--signal=KILL", "docker-*.scope")
		running, err := s.try("systemctl", "list-units", "--state=running", "--no-legend", "--plain", "docker-*.scope")
		if err == nil && running != "" {
			err = errors.Join(errors.New(running), killErr)
		}
		return err
	})
	s.released(time.Now(), containerPort)
	wait.Eventually(s.t, patience, "the engine comes back", func() error {
		_, err := s.try("docker", "version")
		return err
	})
	s.serveInContainer("again")
}

// I3: a Swarm service with --network host: the one task that got the port serves,
// the other's failure is visible, and the engine's own ports are not forwarded.
func testSwarm(t *testing.T, s *system) {
	const port = 9100
	s.run("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
	defer s.run("docker", "swarm", "leave", "--force")
	s.run("docker", "service", "create", "--detach", "--quiet", "--no-resolve-image", "--network", "host",
		"--name", "echo", "--replicas", "2", "--restart-delay", "1s", image,
		"server", "tcp", "::", fmt.Sprint(port), fmt.Sprint(port), "udp", "::", fmt.Sprint(port), fmt.Sprint(port))
	s.serves(port)
	wait.Eventually(t, patience, "the second task's failure shows", func() error {
		out, err := s.try("docker", "service", "ps", "echo", "--format", "{{.CurrentState}} {{.Error}}")
		if err == nil && (!strings.Contains(out, "Running") || !strings.Contains(out, "Failed")) {
			err = errors.New(out)
		}
		return err
	})
	for _, own := range []int{2377, 7946} {
		if err := s.hello("tcp", at("127.0.0.1", own)); !refused(err) {
			t.Errorf("the engine's own port %d gives %v", own, err)
		}
		list, err := s.ports("tcp", own)
		if err != nil || len(list) != 1 || list[0].State != control.PortIgnored {
			t.Errorf("the engine's own port %d is listed as %+v, %v", own, list, err)
		}
	}
	// VXLAN's socket is the kernel's, and comes and goes with the overlay networks.
	list, err := s.ports("udp", 4789)
	must(t, err)
	for _, p := range list {
		if p.State != control.PortIgnored {
			t.Errorf("VXLAN is listed as %+v", p)
		}
	}
	s.run("docker", "service", "rm", "echo")
	s.gone("tcp", port)
}

// I4: TCP and UDP ports opened at once by one container all work, and all go away.
// The row's 10,000 of each are held between namespaces: for the emulated machine
// each of its sockets, and each look at all of them, takes too long.
func testManyPorts(t *testing.T, s *system) {
	const each = 1000
	t.Logf("%d ports of each protocol, for 10,000 would take minutes in emulation", each)
	const first = 10000
	last := first + each - 1
	args := []string{image, "server"}
	for _, network := range []string{"tcp4", "udp4"} {
		args = append(args, network, "0.0.0.0", fmt.Sprint(first), fmt.Sprint(last))
	}
	started := time.Now()
	s.container("many", args...)
	s.awaitOpen(2 * each)
	t.Logf("%d ports were open in %v, with the container's start", 2*each, time.Since(started).Round(time.Millisecond))
	started = time.Now()
	must(t, wait.Together(8, func(lane int) error {
		for port := first + lane; port <= last; port += 8 * 3 {
			for _, network := range []string{"tcp", "udp"} {
				if err := s.hello(network, at("127.0.0.1", port)); err != nil {
					return fmt.Errorf("%s %d: %w", network, port, err)
				}
			}
		}
		return nil
	}))
	t.Logf("a third of them answered within %v", time.Since(started).Round(time.Millisecond))
	s.run("docker", "kill", "many")
	started = time.Now()
	s.awaitOpen(0)
	t.Logf("they were closed %v after the container", time.Since(started).Round(time.Millisecond))
	if open := s.hostSockets(); len(open) > 0 {
		t.Errorf("the host still has %d sockets: %.300q", len(open), open)
	}
}
