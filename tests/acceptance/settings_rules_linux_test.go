package acceptance

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// ruleCase is what becomes of one netcat in the guest.
type ruleCase struct {
	name     string
	settings []string // keys and values, by turns
	network  string   // both when empty
	guest    string   // address and port that netcat listens at
	host     []string // where it answers on the host
	closed   []string // what is closed there
	state    string   // when it answers nowhere
}

// Each kind of rule, with real netcat at both ends: the first rule that matches
// decides about whatever meets all of its criteria.
func TestRules(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)
	wire4, wire6 := hostWire.v4.String(), hostWire.v6.String()
	on := func(rules string) []string { return []string{"ports.rules", rules} }
	for _, c := range []ruleCase{
		{name: "protocol, the other", settings: on(`[{protocol: udp, action: ignore}]`),
			network: "tcp", guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}},
		{name: "protocol", settings: on(`[{protocol: udp, action: ignore}]`),
			network: "udp", guest: "127.0.0.1:7000", state: control.PortIgnored, closed: []string{"127.0.0.1:7000"}},

		{name: "guest address", settings: on(`[{guest_address: 127.0.0.1, action: ignore}]`),
			guest: "127.0.0.1:7000", state: control.PortIgnored, closed: []string{"127.0.0.1:7000"}},
		{name: "guest address, the other", settings: on(`[{guest_address: 127.0.0.1, action: ignore}]`),
			guest: "[::1]:7000", host: []string{"[::1]:7000"}},
		{name: "guest address and port", settings: on(`[{guest_address: "::1", port: 7000, host_port: 17000}]`),
			guest: "[::1]:7000", host: []string{"[::1]:17000"}, closed: []string{"[::1]:7000", "127.0.0.1:17000"}},
		{name: "guest address and port, the other", settings: on(`[{guest_address: "::1", port: 7000, host_port: 17000}]`),
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}, closed: []string{"127.0.0.1:17000"}},

		{name: "port", settings: on(`[{port: 7000, host_port: 17000}]`),
			guest: "0.0.0.0:7000", host: []string{"127.0.0.1:17000", wire4 + ":17000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "range, its first", settings: on(`[{port: 7000-7010, host_port: 17000-17010}]`),
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:17000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "range, its last", settings: on(`[{port: 7000-7010, host_port: 17000-17010}]`),
			guest: "[::1]:7010", host: []string{"[::1]:17010"}, closed: []string{"[::1]:7010"}},
		{name: "range, beyond", settings: on(`[{port: 7000-7010, host_port: 17000-17010}]`),
			guest: "127.0.0.1:7011", host: []string{"127.0.0.1:7011"}, closed: []string{"127.0.0.1:17011"}},

		{name: "narrowed", settings: on(`[{port: 7000, host_address: 127.0.0.1}]`),
			guest: "0.0.0.0:7000", host: []string{"127.0.0.1:7000"}, closed: []string{wire4 + ":7000", "127.8.9.10:7000"}},
		{name: "narrowed, IPv6", settings: on(`[{port: 7000, host_address: "::1"}]`),
			guest: "[::]:7000", host: []string{"[::1]:7000"}, closed: []string{joinText(wire6, "7000"), "127.0.0.1:7000"}},
		{name: "another of the loopback", settings: on(`[{guest_address: 127.0.0.1, host_address: 127.8.9.10}]`),
			guest: "127.0.0.1:7000", host: []string{"127.8.9.10:7000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "of an interface", settings: on(fmt.Sprintf(`[{port: 7000, host_address: %q}]`, wire4)),
			guest: "127.0.0.1:7000", host: []string{wire4 + ":7000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "of an interface, IPv6", settings: on(fmt.Sprintf(`[{port: 7000, host_address: %q, host_port: 17000}]`, wire6)),
			guest: "[::1]:7000", host: []string{joinText(wire6, "17000")}, closed: []string{"[::1]:7000", "[::1]:17000"}},
		{name: "of the other family", settings: on(`[{port: 7000, host_address: "::1"}]`),
			guest: "127.0.0.1:7000", host: []string{"[::1]:7000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "wider", settings: on(`[{port: 7000, host_address: 0.0.0.0}]`),
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000", wire4 + ":7000"}},

		{name: "process", settings: on(`[{process: "nc*", host_address: 127.8.9.10}]`),
			guest: "127.0.0.1:7000", host: []string{"127.8.9.10:7000"}, closed: []string{"127.0.0.1:7000"}},
		{name: "process, ignored", settings: on(`[{process: nc.openbsd, action: ignore}]`),
			guest: "127.0.0.1:7000", state: control.PortIgnored, closed: []string{"127.0.0.1:7000"}},
		{name: "process, another", settings: on(`[{process: ncat, action: ignore}]`),
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}},
		{name: "no container", settings: on(`[{container: "*", action: ignore}, {image: "*", host_address: 127.8.9.10}]`),
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}},

		{name: "ignored by default", network: "udp", guest: "127.0.0.1:5353",
			state: control.PortIgnored, closed: []string{"127.0.0.1:5353"}},
		{name: "forwarded all the same", settings: on(`[{port: 5353, protocol: udp, action: forward}]`), network: "udp",
			guest: "127.0.0.1:5353", host: []string{"127.0.0.1:5353"}},
		{name: "ssh by default", network: "tcp", guest: "0.0.0.0:22", state: control.PortIgnored, closed: []string{"127.0.0.1:22"}},
		{name: "ssh elsewhere", settings: on(`[{port: 22, host_address: 127.0.0.1, host_port: 2222}]`), network: "tcp",
			guest: "0.0.0.0:22", host: []string{"127.0.0.1:2222"}, closed: []string{"127.0.0.1:22", wire4 + ":2222"}},
		{name: "ignored process all the same", settings: []string{"ports.ignore_processes", "nc*", "ports.rules", `[{process: "nc*", action: forward}]`},
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}},

		{name: "the first", settings: on(`[{port: 7001, host_port: 17001}, {port: 7000-7010, action: ignore}]`),
			guest: "127.0.0.1:7001", host: []string{"127.0.0.1:17001"}, closed: []string{"127.0.0.1:7001"}},
		{name: "the second", settings: on(`[{port: 7001, host_port: 17001}, {port: 7000-7010, action: ignore}]`),
			guest: "127.0.0.1:7002", state: control.PortIgnored, closed: []string{"127.0.0.1:7002"}},

		{name: "guest's port denied", settings: []string{"ports.deny", "7000", "ports.rules", `[{port: 7000, host_port: 17000}]`},
			guest: "127.0.0.1:7000", state: control.PortDenied, closed: []string{"127.0.0.1:7000", "127.0.0.1:17000"}},
		{name: "host's port denied", settings: []string{"ports.deny", "17000", "ports.rules", `[{port: 7000, host_port: 17000}]`},
			guest: "127.0.0.1:7000", state: control.PortDenied, closed: []string{"127.0.0.1:7000", "127.0.0.1:17000"}},
		{name: "of one protocol", settings: []string{"ports.deny", "7000/tcp"}, network: "udp",
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:7000"}},
		{name: "host's port allowed", settings: []string{"ports.allow", "17000", "ports.rules", `[{port: 7000, host_port: 17000}]`},
			guest: "127.0.0.1:7000", host: []string{"127.0.0.1:17000"}},
		{name: "guest's port allowed", settings: []string{"ports.allow", "7000", "ports.rules", `[{port: 7000, host_port: 17000}]`},
			guest: "127.0.0.1:7000", state: control.PortDenied, closed: []string{"127.0.0.1:7000", "127.0.0.1:17000"}},
		{name: "none allowed", settings: []string{"ports.allow", "[]"},
			guest: "127.0.0.1:7000", state: control.PortDenied, closed: []string{"127.0.0.1:7000"}},

		{name: "loopback only", settings: []string{"exposure", "loopback"},
			guest: "0.0.0.0:7000", host: []string{"127.0.0.1:7000"}, closed: []string{wire4 + ":7000"}},
		{name: "loopback only, and wider", settings: []string{"exposure", "loopback", "ports.rules", `[{port: 7000, host_address: 0.0.0.0, host_port: 17000}]`},
			guest: "0.0.0.0:7000", host: []string{"127.0.0.1:17000"}, closed: []string{wire4 + ":17000", "127.0.0.1:7000"}},
		{name: "loopback only, and an interface", settings: []string{"exposure", "loopback", "ports.rules", fmt.Sprintf(`[{port: 7000, host_address: %q}]`, wire4)},
			guest: "127.0.0.1:7000", state: control.PortDenied, closed: []string{wire4 + ":7000", "127.0.0.1:7000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.in(t)
			b.have(c.settings...)
			networks := []string{"tcp", "udp"}
			if c.network != "" {
				networks = []string{c.network}
			}
			for _, network := range networks {
				b.testRule(c, network)
			}
		})
	}
}

// have changes settings until the test ends.
func (b *bed) have(keysAndValues ...string) {
	b.t.Helper()
	client := control.NewClient(b.home)
	for pair := range slices.Chunk(keysAndValues, 2) {
		must(b.t, client.Set(b.t.Context(), pair[0], pair[1]))
		b.t.Cleanup(func() { must(b.t, client.Unset(b.background(), pair[0])) })
	}
}

func (b *bed) testRule(c ruleCase, network string) {
	t := b.t
	t.Helper()
	guest := netip.MustParseAddrPort(c.guest)
	name := network + " " + c.guest
	start := func(state string) *talker {
		server := b.nc(b.guest, flagsOf(network), guest.Addr().String(), fmt.Sprint(guest.Port()))
		p := b.view.port(name, state)
		if state != control.PortOpen && p.Reason == "" {
			t.Errorf("%s is %s without a reason", name, state)
		}
		for _, address := range c.closed {
			if err := closed(b.host, network, address); err != nil {
				t.Errorf("%s, %s of the host: %v", name, address, err)
			}
		}
		return server
	}
	stop := func(server *talker) {
		server.kill()
		b.view.gone(name)
	}
	if c.state != "" {
		stop(start(c.state))
	}
	for _, address := range c.host {
		server := start(control.PortOpen)
		client := b.ncTo(b.host, network, address)
		talk.Chat(client, server, network+" "+address)
		client.kill()
		stop(server)
	}
}

// flagsOf are netcat's for a server.
func flagsOf(network string) string {
	if network == "udp" {
		return "-lu"
	}
	return "-l"
}

// ncTo starts netcat as a client.
func (b *bed) ncTo(ns *netns.Namespace, network, address string) *talker {
	b.t.Helper()
	to := netip.MustParseAddrPort(address)
	args := []string{to.Addr().String(), fmt.Sprint(to.Port())}
	if network == "udp" {
		args = append([]string{"-u"}, args...)
	}
	return b.nc(ns, args...)
}

// Rules about containers and images, with real containers.
func TestRulesOfContainers(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true, settings: `
ports:
  rules:
    - {container: "db-*", host_address: 127.8.9.10}
    - {container: secret, action: ignore}
    - {image: "` + image + `", port: 8000-8010, host_port: 18000-18010}
`})
	e := b.startEngine(engineConfig{})
	for _, network := range []string{"tcp", "udp"} {
		for _, c := range []struct{ name, open, closed string }{
			{"db-1", "127.8.9.10:8000", "127.0.0.1:8000"},
			{"web", "127.0.0.1:18000", "127.0.0.1:8000"},
		} {
			server := b.talkOnTerminal(b.guest, e.command("run", "--rm", "-it", "--net=host", "--name", c.name, image,
				"nc", flagsOf(network), "0.0.0.0", "8000"))
			p := b.view.port(network+" 0.0.0.0:8000", control.PortOpen)
			if p.Owner.Container != c.name {
				t.Errorf("the listing says %+v", p)
			}
			must(t, closed(b.host, network, c.closed))
			talk.Chat(b.ncTo(b.host, network, c.open), server, network)
			e.run(nil, "kill", c.name)
			b.view.gone(network + " 0.0.0.0:8000")
		}
	}
	e.container("secret", image, "server", "tcp4", "0.0.0.0", "8000", "8000", "udp4", "0.0.0.0", "8000", "8000")
	for _, network := range []string{"tcp", "udp"} {
		if p := b.view.port(network+" 0.0.0.0:8000", control.PortIgnored); !strings.Contains(p.Reason, "ports.rules[1]") {
			t.Errorf("the reason is %q", p.Reason)
		}
	}
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
}

// A container that a rule keeps closed, or leads elsewhere, is at no moment where
// it would be without the rule, however late the engine tells its name.
func TestRulesNeverLate(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true, settings: `
ports:
  rules:
    - {container: secret, action: ignore}
    - {container: moved, port: 8000, host_address: 127.8.9.10, host_port: 18000}
`})
	e := b.startEngine(engineConfig{})
	for range 5 {
		for _, c := range []struct{ name, state string }{
			{"secret", control.PortIgnored},
			{"moved", control.PortOpen},
		} {
			cmd := e.command("run", "--rm", "--net=host", "--name", c.name, image,
				"server", "tcp4", "0.0.0.0", "8000", "8000", "udp4", "0.0.0.0", "8000", "8000")
			b.spawn(b.guest, "docker", cmd)
			stop, looked := make(chan struct{}), make(chan error, 1)
			go func() { looked <- b.neverOpen(8000, stop) }()
			wait.Eventually(t, patience, c.name+" is "+c.state, func() error {
				for _, network := range []string{"tcp", "udp"} {
					p, err := b.listed(network + " 0.0.0.0:8000")
					if err != nil {
						return err
					}
					if p.State != c.state || p.Owner.Container != c.name {
						return fmt.Errorf("%+v", p)
					}
				}
				return nil
			})
			close(stop)
			if err := <-looked; err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.name == "moved" {
				must(t, try(b.host, "tcp", "127.8.9.10:18000"))
				must(t, try(b.host, "udp", "127.8.9.10:18000"))
			}
			e.run(nil, "rm", "--force", c.name)
			b.view.gone("tcp 0.0.0.0:8000")
			b.view.gone("udp 0.0.0.0:8000")
		}
	}
}

// neverOpen asks a port of the host's loopback, TCP and UDP, as often as it can
// until stop is closed, and wants to be refused every time.
func (b *bed) neverOpen(port int, stop <-chan struct{}) error {
	return b.host.Do(func() error {
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}
		for looks := 0; ; looks++ {
			select {
			case <-stop:
				if looks < 100 {
					return fmt.Errorf("only %d looks", looks)
				}
				return nil
			default:
			}
			for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
				if err := refuses(kind, to); err != nil {
					return fmt.Errorf("after %d looks: %w", looks, err)
				}
			}
		}
	})
}

// refuses returns an error unless an address refuses one try.
func refuses(kind int, to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, to)
	if err == nil && kind == unix.SOCK_DGRAM {
		if _, err = unix.Write(fd, []byte("?")); err != nil {
			return os.NewSyscallError("write", err)
		}
		// The refusal may take the kernel a moment.
		if _, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(answerTime/time.Millisecond)); err == nil {
			var code int
			code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if code != 0 {
				err = unix.Errno(code)
			}
		}
	}
	if err != unix.ECONNREFUSED {
		return fmt.Errorf("a socket of kind %d was not refused: %v", kind, err)
	}
	return nil
}
