package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/internal/traffic"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestDocker holds the rows that are about containers, on one engine.
func TestDocker(t *testing.T) {
	t.Parallel()
	e := startBed(t, bedConfig{}).startEngine(engineConfig{})
	for _, sub := range []struct {
		name string
		test func(*testing.T, *engine)
	}{
		{"I1Netcat", testNetcatInContainer},
		{"I2PublishedPorts", testPublishedPorts},
		{"C1Stop", testContainerStops},
		{"D1HalfClose", testContainerHalfClose},
		{"D8Bulk", testContainerBulk},
		{"E1Datagrams", testContainerDatagrams},
		{"H3Control", testContainerReachesNoControl},
		{"C1EngineCrash", testEngineCrash}, // last
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(t, e.in(t)) })
	}
}

// I1: docker run --rm -it --net=host IMAGE nc -lkv 0.0.0.0 8000 and nc localhost
// 8000 on the host: what is typed appears, both ways. The listing names the
// container.
func testNetcatInContainer(t *testing.T, e *engine) {
	b := e.b
	server := b.talkOnTerminal(b.guest, e.command("run", "--rm", "-it", "--net=host", "--name", "web", image,
		"nc", "-lkv", "0.0.0.0", "8000"))
	b.view.port("tcp 0.0.0.0:8000", control.PortOpen)
	for _, word := range []string{"first", "second"} { // -k: the server takes another one
		client := b.nc(b.host, "localhost", "8000")
		talk.Chat(client, server, word)
		client.kill()
	}
	wait.Eventually(t, patience, "the listing names the container", func() error {
		out, err := b.vmbridge("ports", "--json")
		if err != nil {
			return err
		}
		var ports []control.Port
		if err := json.Unmarshal([]byte(out), &ports); err != nil {
			return err
		}
		if len(ports) != 1 || ports[0].Owner.Container != "web" || ports[0].Owner.Image != image || ports[0].Owner.Process != "nc" {
			return errors.New(out)
		}
		return nil
	})
	e.run(nil, "rm", "--force", "web")
	b.view.gone("tcp 0.0.0.0:8000")
}

// I2: with --net=host Docker discards -p, and says so; what is forwarded is what
// the container listens on.
func testPublishedPorts(t *testing.T, e *engine) {
	b := e.b
	cmd := e.command("run", "--rm", "--net=host", "--name", "web", "-p", "8080:80", image, "server", "tcp4", "0.0.0.0", "80", "80")
	p := b.spawn(b.guest, "docker", cmd)
	b.reach("tcp", "127.0.0.1:80")
	if err := closed(b.host, "tcp", "127.0.0.1:8080"); err != nil {
		t.Errorf("8080: %v", err)
	}
	if out := p.output(); !strings.Contains(out, "Published ports are discarded") {
		t.Errorf("Docker says %q", out)
	}
	e.run(nil, "rm", "--force", "web")
	b.view.gone("tcp 0.0.0.0:80")
}

// containerPort is where the containers' servers of some tests listen.
const containerPort = "9000"

// serves starts an echo server in a container, TCP and UDP, both families.
func (e *engine) serves(name string, flags ...string) {
	e.b.t.Helper()
	e.container(name, append(flags, image, "server",
		"tcp", "::", containerPort, containerPort, "udp", "::", containerPort, containerPort)...)
	e.b.servesBoth(containerPort)
}

// servesBoth waits until a port answers, TCP and UDP, both families.
func (b *bed) servesBoth(port string) {
	b.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		b.reach(network, "127.0.0.1:"+port)
		b.reach(network, "[::1]:"+port)
	}
}

// released checks that the host's ports can be bound again within 2 s, TCP and
// UDP, both families, by programs that know nothing of SO_REUSEADDR.
func (b *bed) released(since time.Time, port string) {
	b.t.Helper()
	const limit = 2 * time.Second
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"0.0.0.0:", "[::]:"} {
			err := wait.Try(max(0, limit-time.Since(since)), func() error {
				return b.bindOnHost(socket.Spec{Network: network, Address: address + port, OnlyV6: true})
			})
			if err != nil {
				b.t.Errorf("%s %s%s is not free %v later: %v", network, address, port, time.Since(since), err)
			}
		}
	}
}

// bindOnHost makes a socket on the host and closes it.
func (b *bed) bindOnHost(s socket.Spec) error {
	f, err := here{b.host}.Open(s)
	if err != nil {
		return err
	}
	return f.Close()
}

// C1: containers that are stopped, killed, removed.
func testContainerStops(t *testing.T, e *engine) {
	for _, end := range []struct {
		name  string
		flags []string
		args  []string
	}{
		{"stop", nil, []string{"stop", "--time", "0"}},
		{"kill", nil, []string{"kill"}},
		{"rm", []string{"--rm"}, []string{"kill"}},
		{"force", nil, []string{"rm", "--force"}},
	} {
		e.serves(end.name, end.flags...)
		// The time counts from when the server has gone, which Docker may take
		// its time with.
		e.run(nil, append(end.args, end.name)...)
		e.b.released(time.Now(), containerPort)
	}
}

// C1: the engine crashes, with everything that belongs to it. Another one serves
// again.
func testEngineCrash(_ *testing.T, e *engine) {
	e.serves("crashes")
	e.crash()
	e.b.released(time.Now(), containerPort)
	e.start()
	e.serves("again")
}

// D1, through a container.
func testContainerHalfClose(t *testing.T, e *engine) {
	e.serves("halfclose")
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		c := e.b.connect("127.0.0.1:" + containerPort)
		must(t, c.SetDeadline(time.Now().Add(patience)))
		must(t, traffic.Exchange(c, int64(size)))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after %d bytes and the end: %v", size, err)
		}
	}
	e.run(nil, "rm", "--force", "halfclose")
	e.b.released(time.Now(), containerPort)
}

// D8, through a container.
func testContainerBulk(t *testing.T, e *engine) {
	e.serves("bulk")
	for _, size := range []int64{1e6, 10e6, 100e6} {
		c := e.b.connect("127.0.0.1:" + containerPort)
		must(t, c.SetDeadline(time.Now().Add(patience)))
		must(t, traffic.Exchange(c, size))
	}
	e.run(nil, "rm", "--force", "bulk")
	e.b.released(time.Now(), containerPort)
}

// E1, with the server in a container.
func testContainerDatagrams(t *testing.T, e *engine) {
	e.serves("datagrams")
	testDatagramClients(t, e.b, 100, "127.0.0.1:"+containerPort, "[::1]:"+containerPort)
	e.run(nil, "rm", "--force", "datagrams")
	e.b.released(time.Now(), containerPort)
}

// H3: a container that shares the guest's network has no way to the control
// socket, nor to the agent's.
func testContainerReachesNoControl(t *testing.T, e *engine) {
	for _, path := range []string{filepath.Join(e.b.home, "control.sock"), e.b.linkSocket()} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		out, err := runFor(e.b.guest, patience, e.command("run", "--rm", "--net=host", image, "nc", "-zvU", path))
		if err == nil || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("a container at %s: %s, %v", path, out, err)
		}
	}
}

// I4: 10,000 TCP and 10,000 UDP ports opened at once by one container all work,
// and all go away. Each takes a descriptor of the daemon, which keeps a tenth of
// what it may have for connections, and one of the server.
func TestI4ManyPorts(t *testing.T) {
	t.Parallel()
	const want, reserve = 10000, 50
	b := startBed(t, bedConfig{noRace: true})
	e := b.startEngine(engineConfig{})
	limit := descriptorLimit(t)
	each := min(want, limit*9/20-reserve)
	const first = 10000
	last := first + each - 1
	args := []string{image, "server"}
	for _, network := range []string{"tcp4", "udp4"} {
		args = append(args, network, "0.0.0.0", fmt.Sprint(first), fmt.Sprint(last))
	}
	e.container("many", args...)
	b.awaitCounts(2*each, 2*each)
	must(t, wait.Together(4, func(lane int) error {
		for port := first + lane; port <= last; port += 4 * 7 {
			for _, network := range []string{"tcp", "udp"} {
				if err := try(b.host, network, hostPort("127.0.0.1", port)); err != nil {
					return fmt.Errorf("%s %d: %w", network, port, err)
				}
			}
		}
		return nil
	}))
	e.run(nil, "kill", "many")
	b.awaitCounts(0, 0)
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host still has %d sockets: %.300q", len(open), open)
	}
	if each < want && !t.Failed() {
		t.Skipf("%d TCP and %d UDP ports work; %d each do not fit into this machine's limit of %d descriptors", each, each, want, limit)
	}
}

// awaitCounts waits until so many ports are listed, and so many of them open.
func (b *bed) awaitCounts(ports, open int) {
	b.t.Helper()
	wait.Eventually(b.t, patience, fmt.Sprintf("%d ports, %d open", ports, open), func() error {
		s, err := b.status()
		if err == nil && (s.Counts.Ports != ports || s.Counts.Open != open) {
			err = fmt.Errorf("%+v", s.Counts)
		}
		return err
	})
}

// descriptorLimit is how many descriptors a child of this process may have.
func descriptorLimit(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	return int(limit.Max)
}

// hostSockets lists the sockets of the host that wait for peers.
func (b *bed) hostSockets() (open []string) {
	b.t.Helper()
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text := ""
		must(b.t, b.host.Do(func() (err error) {
			text, err = readFile("/proc/thread-self/net/" + network)
			return err
		}))
		for line := range strings.Lines(text) {
			// "  12: 0100007F:1B59 00000000:0000 0A ...": listening TCP (0A) and
			// unconnected UDP (07) sockets.
			f := strings.Fields(line)
			if slices.Contains([]string{"0A", "07"}, f[3]) {
				open = append(open, network+" "+f[1])
			}
		}
	}
	return open
}
