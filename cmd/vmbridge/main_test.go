//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/settings"
)

// binaries builds both programs once and gives their directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vmbridge")
	if err != nil {
		return "", err
	}
	// Without the agents that vmbridge may carry, which are of an earlier build.
	overlay, err := withoutAgents(dir)
	if err != nil {
		return dir, err
	}
	// The repository may be somebody else's, and then git does not tell about it.
	args := append([]string{"build", "-buildvcs=false", "-overlay", overlay, "-o", dir}, buildMode...)
	build := exec.Command("go", append(args, "../vmbridge", "../vmbridge-guest")...)
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// withoutAgents writes a file for go build -overlay that hides the agents.
func withoutAgents(dir string) (string, error) {
	agents, err := filepath.Abs("../../hostside/agentbin/agents")
	if err != nil {
		return "", err
	}
	hidden, err := filepath.Glob(filepath.Join(agents, "*.gz"))
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, name := range hidden {
		replace[name] = ""
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, text, 0o600)
}

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, _ := binaries(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// newHome is a home whose socket paths are short.
func newHome(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "vmb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	return home
}

// command is the built vmbridge with a home.
func command(t *testing.T, home string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "vmbridge"), args...)
	// The race detector would have each program wait for a second before it ends.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "VMBRIDGE_HOME="+home)
	return cmd
}

// invoke runs vmbridge to its end.
func invoke(t *testing.T, home string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, home, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// stop interrupts a daemon and waits for it.
func stop(t *testing.T, daemon *exec.Cmd) {
	t.Helper()
	if daemon.ProcessState != nil {
		return
	}
	daemon.Process.Signal(os.Interrupt)
	if err := daemon.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// wantError checks for an exit status and one line that says certain things.
func wantError(t *testing.T, status int, stderr string, wantStatus int, says ...string) {
	t.Helper()
	if status != wantStatus {
		t.Errorf("exit status %d, want %d", status, wantStatus)
	}
	if !strings.HasPrefix(stderr, "vmbridge: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("want one line from vmbridge, got %q", stderr)
	}
	for _, s := range says {
		if !strings.Contains(stderr, s) {
			t.Errorf("%q is not in %q", s, stderr)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	home := newHome(t)
	for _, test := range []struct {
		args string
		says string
	}{
		{"frobnicate", `unknown command "frobnicate"`},
		{"up --nope", "--nope"},
		{"up extra", "extra"},
		{"status --json=maybe", "maybe"},
		{"guest key", "arg"},
		{"guest key ../etc/passwd", "link name"},
		{"guest frobnicate", "frobnicate"},
		{"up --link sandbox:", "NAME=URL"},
		{"up --link a=", "NAME=URL"},
		{"up --link a=ftp://x", "ftp"},
		{"up --link a=vsock://x:y", "context ID"},
		{"up --link a=vsock://:732", "names no guest"},
		{"up --link a=hyperv://vm:732", "not a GUID"},
		{"up --link a=unix://relative", "absolute"},
		{"up --link a=unix:///" + strings.Repeat("long/", 30) + "sock", "at most"},
		{"up --link a=exec:true --link a=exec:true", "twice"},
		{"up --log-format xml", "xml"},
		{"up --log-level loud", "loud"},
	} {
		t.Run(test.args, func(t *testing.T) {
			status, _, stderr := invoke(t, home, strings.Fields(test.args)...)
			wantError(t, status, stderr, 2, test.says, "--help")
		})
	}
}

func TestNoDaemon(t *testing.T) {
	home := newHome(t)
	for _, args := range []string{"status", "status --json", "ports", "ports --json", "ports --watch", "shell true"} {
		t.Run(args, func(t *testing.T) {
			status, _, stderr := invoke(t, home, strings.Fields(args)...)
			wantError(t, status, stderr, 4, "no daemon is running", home, "vmbridge up")
		})
	}
}

func TestUnusable(t *testing.T) {
	home := newHome(t)
	bad := filepath.Join(home, "bad.yaml")
	if err := os.WriteFile(bad, []byte("exposure: mirror\nexposed: all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(home, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		home string
		args []string
		says []string
	}{
		"settings with a mistake": {home, []string{"up", "--settings", bad}, []string{bad + ":2", "exposed", "unknown key"}},
		"settings not there":      {home, []string{"up", "--settings", bad + "x"}, []string{bad + "x", "no such file"}},
		"settings a directory":    {home, []string{"up", "--settings", home}, []string{home}},
		"key not there":           {home, []string{"up", "--key", bad + "x", "--link", "a=unix:///nowhere"}, []string{bad + "x"}},
		"home too long":           {filepath.Join(home, strings.Repeat("long", 30)), []string{"up"}, []string{"control.sock", "VMBRIDGE_HOME"}},
		"home too long to ask":    {filepath.Join(home, strings.Repeat("long", 30)), []string{"status"}, []string{"control.sock", "VMBRIDGE_HOME"}},
		"home for everybody":      {open, []string{"up", "--link", "a=exec:true"}, []string{open, "chmod"}},
		"home is a file":          {bad, []string{"up", "--link", "a=exec:true"}, []string{bad}},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, stderr := invoke(t, test.home, test.args...)
			wantError(t, status, stderr, 1, test.says...)
		})
	}
}

// G1: without a daemon the toggle edits the file, and keeps it.
func TestToggleWithoutDaemon(t *testing.T) {
	home := newHome(t)
	for _, test := range []struct {
		command string
		want    bool
	}{{"enable", true}, {"disable", false}} {
		status, stdout, stderr := invoke(t, home, test.command)
		if status != 0 || stderr != "" || !strings.Contains(stdout, settings.Path(home)) {
			t.Errorf("%s: status %d, %q, %q", test.command, status, stdout, stderr)
		}
		s, err := settings.Open(settings.Sources{Path: settings.Path(home)})
		if err != nil || s.Effective().HostNetworking.Enabled != test.want {
			t.Errorf("%s left %+v, %v", test.command, s, err)
		}
	}
	if err := os.WriteFile(settings.Path(home), []byte("exposure: wide\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := invoke(t, home, "enable")
	wantError(t, status, stderr, 1, settings.Path(home)+":1", "exposure")
}

// refusing is a daemon whose policy forbids everything.
type refusing struct{}

func (refusing) Status() control.Status         { return control.Status{} }
func (refusing) Ports() []control.Port          { return nil }
func (refusing) Reached() []control.ReachedPort { return nil }
func (refusing) Changed() <-chan struct{}       { return nil }
func (refusing) Settings() control.Settings {
	return control.Settings{Path: "/nowhere", Values: []control.Setting{{Key: "exposure", Value: "mirror", Origin: "policy", Locked: true}}}
}
func (refusing) SetEnabled(context.Context, bool) error {
	return fmt.Errorf("%w: isolation is on", control.ErrRefused)
}
func (refusing) Set(context.Context, string, string) error {
	return fmt.Errorf("%w: it is locked", control.ErrRefused)
}
func (refusing) Unset(context.Context, string) error {
	return fmt.Errorf("%w: no such value", control.ErrInvalid)
}
func (refusing) Key(string) (string, error) { return "", errors.New("the disk\nis broken") }
func (refusing) Sandbox(string) (control.Sandbox, error) {
	return control.Sandbox{}, fmt.Errorf("sandbox guest %w", control.ErrNotFound)
}

func TestRefusedAndFailed(t *testing.T) {
	home := newHome(t)
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	server, err := control.Listen(home, logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, refusing{}) }()
	defer func() {
		cancel()
		if err := errors.Join(<-done, server.Close()); err != nil {
			t.Error(err)
		}
	}()
	status, _, stderr := invoke(t, home, "enable")
	wantError(t, status, stderr, 3, "isolation is on")
	status, _, stderr = invoke(t, home, "settings", "set", "exposure", "loopback")
	wantError(t, status, stderr, 3, "it is locked")
	status, _, stderr = invoke(t, home, "settings", "unset", "exposure")
	wantError(t, status, stderr, 2, "no such value")
	status, _, stderr = invoke(t, home, "settings", "get", "exposed")
	wantError(t, status, stderr, 2, "exposed", "exposure")
	status, _, stderr = invoke(t, home, "guest", "key", "a")
	wantError(t, status, stderr, 1, "the disk; is broken")
	status, _, stderr = invoke(t, home, "shell")
	wantError(t, status, stderr, 1, "sandbox guest not found")
}

func TestVersion(t *testing.T) {
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vmbridge", "vmbridge-guest"} {
		out, err := exec.Command(filepath.Join(dir, name), "version").Output()
		if err != nil || !strings.HasPrefix(string(out), name+" ") {
			t.Errorf("%s version: %q, %v", name, out, err)
		}
	}
	if status, stdout, _ := invoke(t, newHome(t), "--help"); status != 0 || !strings.Contains(stdout, "enable") {
		t.Errorf("--help: status %d, %q", status, stdout)
	}
}
