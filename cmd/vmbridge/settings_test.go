//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// box is a home and the environment of those who use it, in which nothing of this
// machine's user counts.
type box struct {
	t       *testing.T
	home    string
	environ []string
}

func newBox(t *testing.T) *box {
	home := newHome(t)
	return &box{t, home, []string{"HOME=" + home, "SUDO_UID=", "SUDO_USER="}}
}

// with is the box with more variables.
func (b *box) with(environ ...string) *box {
	return &box{b.t, b.home, slices.Concat(b.environ, environ)}
}

func (b *box) command(args ...string) *exec.Cmd {
	cmd := command(b.t, b.home, args...)
	cmd.Env = append(cmd.Env, b.environ...)
	return cmd
}

// run runs vmbridge to its end.
func (b *box) run(args ...string) (status int, stdout, stderr string) {
	b.t.Helper()
	cmd := b.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// prints checks what a command that works prints, on standard output alone.
func (b *box) prints(want string, args ...string) {
	b.t.Helper()
	if status, stdout, stderr := b.run(args...); status != 0 || stdout != want || stderr != "" {
		b.t.Errorf("%q: status %d, %q, %q; want %q", args, status, stdout, stderr, want)
	}
}

// fails checks for an exit status and one line that says certain things.
func (b *box) fails(want int, says []string, args ...string) {
	b.t.Helper()
	status, stdout, stderr := b.run(args...)
	if stdout != "" {
		b.t.Errorf("%q prints %q", args, stdout)
	}
	wantError(b.t, status, stderr, want, says...)
	if b.t.Failed() {
		b.t.Fatalf("after %q", args)
	}
}

func (b *box) path() string { return settings.Path(b.home) }

func (b *box) write(path, text string) {
	b.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) read(path string) string {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// list is what settings list --json prints.
func (b *box) list() control.Settings {
	b.t.Helper()
	status, stdout, stderr := b.run("settings", "list", "--json")
	var s control.Settings
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || status != 0 || stderr != "" {
		b.t.Fatalf("list: %d, %v, %s: %s", status, err, stderr, stdout)
	}
	return s
}

// value is a setting as it is listed.
func (b *box) value(key string) control.Setting {
	b.t.Helper()
	for _, v := range b.list().Values {
		if v.Key == key {
			return v
		}
	}
	b.t.Fatalf("%s is not listed", key)
	return control.Setting{}
}

// up runs a daemon, whose link leads nowhere unless args name another one, until
// the test ends.
func (b *box) up(args ...string) *exec.Cmd {
	b.t.Helper()
	if !slices.Contains(args, "--settings") {
		args = append(args, "--link", "nowhere=unix://"+filepath.Join(b.home, "none"))
	}
	daemon := b.command(append([]string{"up"}, args...)...)
	if err := daemon.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { stop(b.t, daemon) })
	wait.Until(b.t, 20*time.Second, "the daemon answers", func() bool {
		_, err := control.NewClient(b.home).Status(b.t.Context())
		return err == nil
	})
	return daemon
}

// asBoth runs a test with a daemon and without one.
func asBoth(t *testing.T, test func(*box)) {
	for _, daemon := range []bool{true, false} {
		t.Run(fmt.Sprintf("daemon=%v", daemon), func(t *testing.T) {
			b := newBox(t)
			if daemon {
				b.up()
			}
			test(b)
		})
	}
}

// G1: the commands, with a daemon and without one.
func TestSettings(t *testing.T) {
	asBoth(t, func(b *box) {
		t := b.t
		b.prints(b.path()+"\n", "settings", "path")
		b.prints("mirror\n", "settings", "get", "exposure")
		if v := b.value("exposure"); v.Origin != "default" || v.Place != "" || v.Value != "mirror" || v.Default != "mirror" || v.Locked || v.Help == "" {
			t.Errorf("the default: %+v", v)
		}
		if _, err := os.Stat(b.path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("to look makes a file: %v", err)
		}

		const text = "# how we want it\nexposure: mirror # for now\n\nports:\n  deny: [22/tcp] # never ssh\n"
		b.write(b.path(), text)
		wait.Until(t, 10*time.Second, "the file counts", func() bool { return b.value("ports.deny").Origin == "file" })
		b.prints("exposure is loopback\n", "settings", "set", "exposure", "loopback")
		b.prints("loopback\n", "settings", "get", "exposure")
		b.prints("limits.flows is 1000\n", "settings", "set", "limits.flows", "1000")
		b.prints("ports.deny is [22/tcp, 80, 8000-8999/udp]\n", "settings", "set", "ports.deny", "22/tcp,80,8000-8999/udp")
		for _, kept := range []string{"# how we want it\n", "exposure: loopback # for now\n", "# never ssh\n"} {
			if now := b.read(b.path()); !strings.Contains(now, kept) {
				t.Errorf("%q is not in\n%s", kept, now)
			}
		}
		if v := b.value("exposure"); v.Origin != "file" || v.Place != b.path()+":2" {
			t.Errorf("from the file: %+v", v)
		}
		status, table, stderr := b.run("settings", "list")
		if status != 0 || stderr != "" || !strings.Contains(table, "file "+b.path()+":2") {
			t.Errorf("list: %d, %s, %s", status, stderr, table)
		}
		if lines := strings.Count(table, "\n"); lines != 1+len(settings.Keys()) {
			t.Errorf("list has %d lines:\n%s", lines, table)
		}
		b.prints("exposure is mirror\n", "settings", "unset", "exposure")
		b.prints("ports.deny is []\n", "settings", "unset", "ports.deny")
		b.prints("limits.flows is 32768\n", "settings", "unset", "limits.flows")
		b.prints("exposure is mirror\n", "settings", "unset", "exposure") // again
		if s := b.list(); len(s.Problems) > 0 || s.Path != b.path() || s.Policy == "" {
			t.Errorf("list: %+v", s)
		}
	})
}

// G1: each key takes what it should, and says what is wrong with what it should
// not, under its name.
func TestEveryKey(t *testing.T) {
	values := map[string]struct{ good, is, bad string }{
		"host_networking.enabled":                {"true", "true", "yes"},
		"exposure":                               {"loopback", "loopback", "wide"},
		"localhost_twin":                         {"true", "true", "1"},
		"ports.ignore":                           {"53,5353/udp", "[53, 5353/udp]", "70000"},
		"ports.ignore_processes":                 {"sshd,systemd-*", "[sshd, systemd-*]", "[[a]"},
		"ports.allow":                            {"8000-8999/tcp", "[8000-8999/tcp]", "9-8"},
		"ports.deny":                             {"[22/tcp]", "[22/tcp]", "22/icmp"},
		"ports.rules":                            {"[{port: 80, host_port: 8080}]", "[{port: 80, host_port: 8080}]", "[{port: 80, host_port: 0}]"},
		"host_reach.enabled":                     {"false", "false", "''"},
		"host_reach.allow":                       {"all", "all", "everything"},
		"host_reach.deny":                        {"6000-6063", "[6000-6063]", "6000-"},
		"links":                                  {"a=exec:cat", "", "a=ftp://x"},
		"limits.listeners":                       {"10", "10", "0"},
		"limits.flows":                           {"10", "10", "many"},
		"limits.udp_idle":                        {"30s", "30s", "30"},
		"limits.memory":                          {"64MiB", "64MiB", "1"},
		"isolation.enhanced_container_isolation": {"true", "true", "maybe"},
	}
	asBoth(t, func(b *box) {
		for _, k := range settings.Keys() {
			v, ok := values[k.Key]
			if !ok {
				b.t.Errorf("the test lacks %s", k.Key)
				continue
			}
			b.fails(2, []string{": " + k.Key}, "settings", "set", k.Key, v.bad)
			if _, err := os.Stat(b.path()); err == nil && strings.Contains(b.read(b.path()), v.bad) {
				b.t.Errorf("%s: what was wrong is in the file", k.Key)
			}
			status, stdout, stderr := b.run("settings", "set", k.Key, v.good)
			if status != 0 || v.is != "" && stdout != k.Key+" is "+v.is+"\n" {
				b.t.Errorf("%s: %d, %q, %q", k.Key, status, stdout, stderr)
			}
			for _, value := range k.Values { // those that completion offers
				if status, _, stderr := b.run("settings", "set", k.Key, value); status != 0 {
					b.t.Errorf("set %s %s: %d, %s", k.Key, value, status, stderr)
				}
			}
			// Back to the default, and for the toggle with isolation off.
			if status, _, stderr := b.run("settings", "unset", k.Key); status != 0 {
				b.t.Errorf("unset %s: %d, %s", k.Key, status, stderr)
			}
		}
	})
}

// G1: keys that do not exist are the caller's mistake, and come with the nearest
// that does.
func TestUnknownKey(t *testing.T) {
	asBoth(t, func(b *box) {
		for _, test := range []struct {
			args, near string
		}{
			{"get exposre", "exposure"},
			{"set exposre loopback", "exposure"},
			{"unset exposre", "exposure"},
			{"set ports.ignored 22", "ports.ignore"},
			{"set Exposure loopback", "exposure"},
			{"get ports", "ports."},
		} {
			b.fails(2, []string{"unknown key", test.near, "--help"}, append([]string{"settings"}, strings.Fields(test.args)...)...)
		}
		for _, args := range []string{"get", "get exposure mirror", "set exposure", "set", "unset", "list extra", "path extra", "frobnicate", "list --nope"} {
			b.fails(2, []string{"--help"}, append([]string{"settings"}, strings.Fields(args)...)...)
		}
	})
}

// Precedence: the default, the file, the environment, flags; each is listed with
// its place, and what is weaker can be written and waits.
func TestPrecedence(t *testing.T) {
	b := newBox(t)
	b.write(b.path(), "limits:\n  flows: 10\nlinks: [{name: file, url: 'exec:cat'}]\n")
	strong := b.with("VMBRIDGE_LIMITS_FLOWS=20", "VMBRIDGE_LINKS=env=exec:cat", "VMBRIDGE_EXPOSURE=")
	shows := func(b *box, key, value, origin, place string) {
		t.Helper()
		if v := b.value(key); !strings.Contains(v.Value, value) || v.Origin != origin || v.Place != place {
			t.Errorf("want %s from %s %s: %+v", value, origin, place, v)
		}
	}
	shows(b, "limits.flows", "10", "file", b.path()+":2")
	shows(b, "limits.listeners", "20000", "default", "")
	shows(strong, "limits.flows", "20", "environment", "VMBRIDGE_LIMITS_FLOWS")
	shows(strong, "links", "env", "environment", "VMBRIDGE_LINKS")
	shows(strong, "exposure", "mirror", "default", "") // an empty variable is none

	const waits = "VMBRIDGE_LIMITS_FLOWS outranks "
	status, stdout, stderr := strong.run("settings", "set", "limits.flows", "30")
	if status != 0 || stdout != "limits.flows is 20\n" || !strings.Contains(stderr, waits+b.path()) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("set: %d, %q, %q", status, stdout, stderr)
	}
	shows(b, "limits.flows", "30", "file", b.path()+":2")

	// The daemon's environment and flags count, not the command's.
	strong.up("--enable", "--link", "flag=exec:cat")
	shows(b, "limits.flows", "20", "environment", "VMBRIDGE_LIMITS_FLOWS")
	shows(b, "links", "flag", "flag", "--link")
	shows(b, "host_networking.enabled", "true", "flag", "--enable")
	b = b.with("VMBRIDGE_LIMITS_FLOWS=99")
	shows(b, "limits.flows", "20", "environment", "VMBRIDGE_LIMITS_FLOWS")
	status, _, stderr = b.run("settings", "set", "links", "other=exec:cat")
	if status != 0 || !strings.Contains(stderr, "--link outranks ") {
		t.Errorf("set links: %d, %q", status, stderr)
	}

	// A variable that cannot be is a mistake of the caller's surroundings.
	b.with("VMBRIDGE_HOME="+newHome(t), "VMBRIDGE_EXPOSURE=wide").fails(1, []string{"VMBRIDGE_EXPOSURE", "exposure", "mirror or loopback"}, "settings", "list")
	status, _, stderr = b.with("VMBRIDGE_HOME="+newHome(t), "VMBRIDGE_EXPOSRE=loopback").run("settings", "list")
	if status != 0 || !strings.Contains(stderr, "VMBRIDGE_EXPOSRE") || !strings.Contains(stderr, "VMBRIDGE_EXPOSURE?") {
		t.Errorf("a variable with a mistake in its name: %d, %q", status, stderr)
	}
}

// up --settings FILE: that file is the one that the commands show and change.
func TestNamedFile(t *testing.T) {
	b := newBox(t)
	named := filepath.Join(newHome(t), "named.yaml")
	b.write(named, "# mine\nlinks: [{name: a, url: 'unix:///nowhere'}]\n")
	daemon := b.up("--settings", named)
	b.prints(named+"\n", "settings", "path")
	b.prints("exposure is loopback\n", "settings", "set", "exposure", "loopback")
	if status, _, stderr := b.run("enable"); status != 0 {
		t.Errorf("enable: %d, %s", status, stderr)
	}
	for _, part := range []string{"# mine\n", "exposure: loopback", "enabled: true"} {
		if text := b.read(named); !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
	if _, err := os.Stat(b.path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the home's file: %v", err)
	}
	stop(t, daemon)
	b.prints(b.path()+"\n", "settings", "path")
	b.prints("mirror\n", "settings", "get", "exposure")
}
