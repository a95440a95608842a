//go:build unix

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// state is what the daemon says of the toggle.
func (b *box) state() string {
	b.t.Helper()
	s, err := control.NewClient(b.home).Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return s.HostNetworking
}

// G1: the toggle is a variable of the daemon's environment. It cannot be turned
// against it, and enable and disable say so instead of seeming to work.
func TestToggleInEnvironment(t *testing.T) {
	const variable = "VMBRIDGE_HOST_NETWORKING_ENABLED"
	for value, test := range map[string]struct{ same, against, state string }{
		"true":  {"enable", "disable", control.On},
		"false": {"disable", "enable", control.Off},
	} {
		for _, daemon := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, daemon=%v", value, daemon), func(t *testing.T) {
				b := newBox(t)
				inEnvironment := b.with(variable + "=" + value)
				if daemon {
					inEnvironment.up()
				} else {
					b = inEnvironment
				}
				b.fails(1, []string{test.against + ": ", variable + "=" + value}, test.against)
				if status, stdout, stderr := b.run(test.same); status != 0 || !strings.Contains(stdout, test.state) {
					t.Errorf("%s: %d, %q, %q", test.same, status, stdout, stderr)
				}
				if daemon && b.state() != test.state {
					t.Errorf("host networking is %s", b.state())
				}
			})
		}
	}
}

// G1: --enable is for one run, and disable is stronger than it, now and later.
func TestToggleAfterFlag(t *testing.T) {
	b := newBox(t)
	daemon := b.up("--enable")
	if b.state() != control.On {
		t.Errorf("host networking is %s", b.state())
	}
	b.prints("host networking is off\n", "disable")
	if v := b.value("host_networking.enabled"); b.state() != control.Off || v.Value != "false" {
		t.Errorf("host networking is %s, %+v", b.state(), v)
	}
	b.prints("host networking is on\n", "enable")
	if v := b.value("host_networking.enabled"); b.state() != control.On || v.Value != "true" || v.Origin != "file" {
		t.Errorf("host networking is %s, %+v", b.state(), v)
	}
	b.prints("host_networking.enabled is false\n", "settings", "set", "host_networking.enabled", "false")
	if b.state() != control.Off {
		t.Errorf("after set, host networking is %s", b.state())
	}
	b.prints("host networking is on\n", "enable")
	stop(t, daemon)
	daemon = b.up()
	if b.state() != control.On {
		t.Errorf("the next daemon: host networking is %s", b.state())
	}
	b.prints("host_networking.enabled is false\n", "settings", "unset", "host_networking.enabled")
	if b.state() != control.Off {
		t.Errorf("after unset, host networking is %s", b.state())
	}
	stop(t, daemon)
	// A run's flag is not kept.
	stop(t, b.up("--enable"))
	b.prints("false\n", "settings", "get", "host_networking.enabled")
}

// badFiles are mistakes, and what is said of them after the file's name.
var badFiles = map[string]string{
	"exposure: wide\n":                        ":1: exposure: must be mirror or loopback",
	"# a\n\nexposed: mirror\n":                ":3: exposed: unknown key",
	"limits:\n  flows: many\n":                ":2: limits.flows: ",
	"ports:\n  rules:\n  - {port: 70000}\n":   ":3: ports.rules[0].port: ",
	"links:\n- {name: a, url: 'ftp://x'}\n":   ":2: links[0].url: ",
	"exposure: mirror\nexposure: loopback\n":  ":2: exposure: ",
	"ports: [\n":                              ":",
	"links: [{name: a, url: \"exec:\\e[m\"}]": ":1: links[0].url: ",
}

// G1: a file with a mistake in it, without a daemon: every command that needs it
// says where, in one line, and changes nothing.
func TestBadFile(t *testing.T) {
	b := newBox(t)
	for text, says := range badFiles {
		b.write(b.path(), text)
		for _, args := range []string{
			"enable", "disable", "settings list", "settings list --json", "settings get exposure",
			"settings set localhost_twin true", "settings unset localhost_twin", "up", "up --enable",
			"up --settings " + b.path(),
		} {
			b.fails(1, []string{b.path() + says}, strings.Fields(args)...)
		}
		b.prints(b.path()+"\n", "settings", "path")
		if now := b.read(b.path()); now != text {
			t.Errorf("the file has become %q", now)
		}
	}
}

// G1: a file goes bad while a daemon runs: the last good settings stay in force,
// each command says what is wrong, and those that would change the file refuse.
func TestBadFileLater(t *testing.T) {
	b := newBox(t)
	const good = "exposure: loopback\nhost_networking: {enabled: true}\n"
	b.write(b.path(), good)
	b.up()
	for text, says := range badFiles {
		b.write(b.path(), text)
		wait.Until(t, 10*time.Second, "the daemon tells of it", func() bool {
			return len(b.list().Problems) == 1 && strings.Contains(b.list().Problems[0], b.path()+says)
		})
		status, stdout, stderr := b.run("settings", "list")
		if status != 0 || !strings.Contains(stdout, "loopback") {
			t.Errorf("list: %d, %s", status, stdout)
		}
		wantError(t, 1, stderr, 1, b.path()+says, "last good settings")
		b.prints("loopback\n", "settings", "get", "exposure")
		if status, out, _ := b.run("status"); status != 0 || !strings.Contains(out, b.path()+says) {
			t.Errorf("status: %d, %s", status, out)
		}
		for _, args := range []string{"enable", "settings set localhost_twin true", "settings unset localhost_twin"} {
			b.fails(1, []string{b.path() + says}, strings.Fields(args)...)
		}
		if now := b.read(b.path()); now != text || b.state() != control.On {
			t.Errorf("the file has become %q, host networking %s", now, b.state())
		}
	}
	b.write(b.path(), good)
	wait.Until(t, 10*time.Second, "nothing is wrong", func() bool { return len(b.list().Problems) == 0 })
	b.prints("host networking is off\n", "disable")
}

// C4: off is off, whatever is wrong with the file; that it is not kept is said.
func TestDisableWithABadFile(t *testing.T) {
	b := newBox(t)
	b.up("--enable")
	const text = "exposure: wide\n"
	b.write(b.path(), text)
	b.fails(1, []string{"off for this run", b.path() + ":1: exposure"}, "disable")
	if b.state() != control.Off {
		t.Errorf("host networking is %s", b.state())
	}
	b.fails(1, []string{b.path() + ":1: exposure"}, "enable")
	b.write(b.path(), "")
	b.prints("host networking is on\n", "enable")
	b.prints("host networking is off\n", "disable")
	if b.state() != control.Off {
		t.Errorf("host networking is %s", b.state())
	}
}
