package acceptance

import (
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/internal/socket"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// G1: a bad file is one line with file, line and key; the last good settings stay
// in force, and the mended file applies.
func TestG1BadFile(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true, settings: "ports: {deny: [7001]}"})
	for _, port := range []string{"7000", "7001"} {
		b.spawnServer(port)
	}
	b.servesBoth("7000")
	b.view.port("tcp [::]:7001", control.PortDenied)
	flows := b.converse("127.0.0.1:7000")
	for _, c := range []struct{ text, want string }{
		{"exposrue: mirror", ":3: exposrue: unknown key: did you mean exposure?"},
		{"exposure: wide", ":3: exposure: must be mirror or loopback"},
		{"ports:\n  deny:\n    - 70000", ":5: ports.deny[0]: "},
		{"ports:\n  deny: [10-20, 15]", ":4: ports.deny[1]: "},
		{"ports:\n  rules:\n    - {port: 7000, host_prot: 1}", ":5: ports.rules[0].host_prot: "},
		{"limits: {flows: many}", ":3: limits.flows: "},
		{"exposure: [", ":3"},
	} {
		b.write(b.settingsText(c.text))
		b.awaitWarning(b.settingsPath() + c.want)
		b.exits(0, b.settingsPath()+c.want, "status")
		must(t, try(b.host, "tcp", "127.0.0.1:7000"))
		must(t, closed(b.host, "tcp", "127.0.0.1:7001"))
		lasts(t, flows)
		// Changes by command are refused, for they would be lost in it, and leave it.
		b.exits(1, b.settingsPath()+":", "settings", "set", "localhost_twin", "true")

		b.write(b.settingsText("ports: {deny: [7001]}"))
		b.awaitNoWarning()
		lasts(t, flows)
	}
	b.write(b.settingsText(""))
	b.servesBoth("7001")
	stops(t, flows)

	// A daemon that is started on one does not start.
	b.daemon.terminate()
	b.write(b.settingsText("exposrue: mirror"))
	_, err := b.vmbridge("up")
	if err == nil || !strings.Contains(err.Error(), b.settingsPath()+":3: exposrue: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("up: %v", err)
	}
	b.exits(1, b.settingsPath()+":3: exposrue: ", "up")
	b.exits(1, b.settingsPath()+":3: exposrue: ", "settings", "list")
	b.exits(0, b.settingsPath(), "settings", "path")
}

// G1: off by default; links of the file are served before anything is turned on,
// and host networking follows the file.
func TestG1OffByDefault(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{fromFile: true})
	b.write("links: [" + b.linkEntry() + "]\n")
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	b.spawnServer("7000")
	b.awaitNetworking(followTime, control.Off)
	b.exits(0, "vmbridge enable", "status")
	wait.Eventually(t, patience, "the agent has told of the server", func() error {
		return try(b.guest, "tcp", "127.0.0.1:7000")
	})
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
	b.echo(socket.Spec{Network: "tcp", Address: "127.0.0.1:7001"})
	b.exits(0, "host networking is on", "enable")
	b.servesBoth("7000")
	b.reach("tcp", "127.0.0.1:7001")
	b.write("links: [" + b.linkEntry() + "]\n")
	b.unreachable("tcp", "127.0.0.1:7000")
}
