package acceptance

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/netns"
	"github.com/vmbridge/vmbridge/tests/internal/talk"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// B5: two guests want one port: the first keeps it, the second shows a conflict
// that names the first; when the first lets go, the second opens. TCP and UDP,
// both families.
func TestB5TwoGuests(t *testing.T) {
	t.Parallel()
	first := startBed(t, bedConfig{fromFile: true})
	second := first.another("second")
	first.write(first.settingsTextWith([]string{first.linkEntry(), second.linkEntry()}, ""))
	first.awaitLinkState("second", control.LinkUp)
	first.testTwoGuests(second, func(b *bed) *netns.Namespace { return b.guest })
}

// B5, with two guests that the settings make: two sandboxes, the second of which
// comes and goes while the daemon runs.
func TestB5TwoSandboxes(t *testing.T) {
	t.Parallel()
	first := newBed(t, bedConfig{fromFile: true})
	const one, two = `{name: vm, url: "sandbox:"}`, `{name: second, url: "sandbox:"}`
	first.write(first.settingsTextWith([]string{one}, ""))
	paths := map[string]string{}
	t.Cleanup(func() { // behind the daemon, which does it unless it was killed
		for _, path := range paths {
			_ = unix.Unmount(path, unix.MNT_DETACH)
			_ = os.Remove(path)
		}
	})
	first.daemon = first.spawn(first.host, "daemon", first.command("up"))
	first.follow()
	first.awaitLinkState("vm", control.LinkUp)
	first.write(first.settingsTextWith([]string{one, two}, ""))
	second := *first
	second.link = "second"
	for _, b := range []*bed{first, &second} {
		b.awaitLinkState(b.linkName(), control.LinkUp)
		ns, err := control.NewClient(b.home).Sandbox(t.Context(), b.linkName())
		must(t, err)
		paths[b.linkName()] = ns.NetNS
	}
	if paths["vm"] == paths["second"] {
		t.Fatalf("both are in %s", paths["vm"])
	}
	first.testTwoGuests(&second, nil)
	first.write(first.settingsTextWith([]string{one}, ""))
	wait.Eventually(t, patience, "the second sandbox is gone", func() error {
		if _, err := os.Stat(paths["second"]); !os.IsNotExist(err) {
			return fmt.Errorf("%s: %w", paths["second"], err)
		}
		return nil
	})
	first.awaitLinkState("vm", control.LinkUp)
	first.daemon.terminate()
	for name, path := range paths {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the sandbox of %s is left: %v", name, err)
		}
	}
}

// testTwoGuests has both guests serve one port. Where there is no namespace, the
// servers are started by vmbridge shell.
func (b *bed) testTwoGuests(second *bed, inside func(*bed) *netns.Namespace) {
	t := b.t
	t.Helper()
	serve := func(b *bed, name string, args ...string) *talker {
		t.Helper()
		if inside == nil {
			return b.talk(b.host, b.command(append([]string{"shell", "--link", name, b.need("nc.openbsd")}, args...)...))
		}
		return b.nc(inside(b), args...)
	}
	for _, c := range []struct{ network, address string }{
		{"tcp", "127.0.0.1"}, {"udp", "127.0.0.1"}, {"tcp", "::1"}, {"udp", "::1"}, {"tcp", "0.0.0.0"}, {"udp", "0.0.0.0"},
	} {
		const port = "7000"
		name := c.network + " " + joinText(c.address, port)
		reached := joinText(map[string]string{"0.0.0.0": "127.0.0.1"}[c.address], port)
		if c.address != "0.0.0.0" {
			reached = joinText(c.address, port)
		}
		flags := "-lk"
		if c.network == "udp" {
			flags = "-lu"
		}
		one := serve(b, b.linkName(), flags, c.address, port)
		b.awaitPort(name, control.PortOpen)
		two := serve(second, second.linkName(), flags, c.address, port)
		p := second.awaitPort(name, control.PortConflict)
		if !strings.Contains(p.Reason, `"vm"`) && !strings.Contains(p.Reason, "link vm") {
			t.Errorf("%s: the conflict does not name the first: %q", name, p.Reason)
		}
		b.exits(0, p.Reason, "ports")
		if p, err := b.listed(name); err != nil || p.State != control.PortOpen {
			t.Errorf("%s of the first is %+v, %v", name, p, err)
		}
		client := b.ncTo(b.host, c.network, reached)
		talk.Chat(client, one, "first")
		client.kill()
		one.kill()
		second.awaitPort(name, control.PortOpen)
		client = b.ncTo(b.host, c.network, reached)
		talk.Chat(client, two, "second")
		client.kill()
		two.kill()
		wait.Eventually(t, patience, name+" is gone", func() error {
			if p, err := second.listed(name); err == nil {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	}

	// A rule leads away what one of them has at another address, and so both.
	client := control.NewClient(b.home)
	one := serve(b, b.linkName(), "-lk", "127.0.0.1", "7000")
	b.awaitPort("tcp 127.0.0.1:7000", control.PortOpen)
	two := serve(second, second.linkName(), "-lk", "0.0.0.0", "7000")
	second.awaitPort("tcp 0.0.0.0:7000", control.PortConflict)
	must(t, client.Set(t.Context(), "ports.rules", "[{guest_address: 0.0.0.0, port: 7000, host_port: 17000}]"))
	second.awaitPort("tcp 0.0.0.0:7000", control.PortOpen)
	for _, to := range []struct {
		address string
		server  *talker
	}{{"127.0.0.1:7000", one}, {"127.0.0.1:17000", two}} {
		c := b.ncTo(b.host, "tcp", to.address)
		talk.Chat(c, to.server, to.address)
		c.kill()
	}
	must(t, client.Unset(t.Context(), "ports.rules"))
	second.awaitPort("tcp 0.0.0.0:7000", control.PortConflict)
	c := b.ncTo(b.host, "tcp", "127.0.0.1:7000")
	talk.Chat(c, one, "as before")
}
