package install_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/guestside/install"
	"github.com/vmbridge/vmbridge/guestside/ready"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// roleEnv makes the test binary another program: "ready" is an agent that serves,
// "install" installs once and again.
const roleEnv = "VMBRIDGE_TEST_INSTALL"

func TestMain(m *testing.M) {
	switch role, root, _ := strings.Cut(os.Getenv(roleEnv), " "); role {
	case "ready":
		if err := ready.Tell(); err != nil {
			panic(err)
		}
		os.Exit(0)
	case "install":
		installForEver(root)
	}
	os.Exit(m.Run())
}

const unit = "etc/systemd/system/vmbridge-guest.service"

func TestSystemd(t *testing.T) {
	m := newMachine(t)
	m.systemd(true)
	key := newKey()
	m.mustInstall(key)
	m.wantCalls(
		"systemctl daemon-reload",
		"systemctl enable vmbridge-guest.service",
		"systemctl restart vmbridge-guest.service",
		"systemctl is-active vmbridge-guest.service",
	)
	m.wantOut("Installed "+install.Program, "Wrote the link key", "Wrote /"+unit, "Enabled", "the agent serves")
	m.wantMode(install.Program, 0o755)
	m.wantMode(install.KeyFile, 0o600)
	m.wantMode(filepath.Dir(install.KeyFile), 0o700)
	m.wantMode(unit, 0o644)
	if got := m.read(install.Program); got != "version 1" {
		t.Errorf("the program is %q", got)
	}
	if got, err := linkkey.Load(m.at(install.KeyFile)); err != nil || got != *key {
		t.Errorf("key %v, %v", got, err)
	}

	// Another version, and no other key.
	m.write("program", "version 2, and more")
	m.mustInstall(nil)
	m.wantOut("Installed "+install.Program, "Kept the link key")
	if got := m.read(install.Program); got != "version 2, and more" {
		t.Errorf("the program is %q", got)
	}
	// Another key, and the same version.
	key = newKey()
	m.mustInstall(key)
	m.wantOut("is this version already", "Wrote the link key")
	if got, err := linkkey.Load(m.at(install.KeyFile)); err != nil || got != *key {
		t.Errorf("key %v, %v", got, err)
	}
	m.calls()

	m.write("etc/vmbridge/of-somebody-else", "")
	m.out.Reset()
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
		t.Fatal(err)
	}
	m.wantCalls("systemctl disable --now vmbridge-guest.service", "systemctl daemon-reload")
	m.wantOut("removed the service", "Removed "+install.Program, "Removed "+install.KeyFile)
	for _, path := range []string{unit, install.Program, install.KeyFile} {
		if m.has(path) {
			t.Errorf("%s is still there", path)
		}
	}
	if !m.has("etc/vmbridge/of-somebody-else") {
		t.Error("what is not ours has been removed")
	}
	m.out.Reset()
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
		t.Fatal(err)
	}
	m.wantCalls()
	m.wantOut("Nothing of vmbridge")
}

// TestSystemdFails: an agent that does not serve is an error, with its last words.
func TestSystemdFails(t *testing.T) {
	for _, verb := range []string{"restart", "is-active"} {
		m := newMachine(t)
		m.systemd(true)
		m.write("fail-systemctl-"+verb, "")
		err := m.install(newKey())
		if err == nil || !strings.Contains(err.Error(), "start the service: systemctl "+verb) ||
			!strings.Contains(err.Error(), "systemctl is sorry") || strings.Contains(err.Error(), "more to say") {
			t.Errorf("%s: got %v", verb, err)
		}
		m.wantOut("Its log: two", "Its log: five", "words")
		if strings.Contains(m.out.String(), "log: one") || strings.Contains(m.out.String(), "\033") || strings.Contains(m.out.String(), "serves") {
			t.Errorf("%s: printed:\n%s", verb, &m.out)
		}
	}
	m := newMachine(t)
	m.systemd(true)
	m.write("fail-systemctl-enable", "")
	if err := m.install(newKey()); err == nil || !strings.Contains(err.Error(), "enable the service") {
		t.Errorf("got %v", err)
	}
}

// TestImage: where no manager runs, as in a chroot, the service is enabled only.
func TestImage(t *testing.T) {
	m := newMachine(t)
	m.systemd(false)
	m.mustInstall(newKey())
	m.wantCalls("systemctl enable vmbridge-guest.service")
	m.wantOut("systemd does not run here", "next boot")
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
		t.Fatal(err)
	}
	m.wantCalls("systemctl disable vmbridge-guest.service")

	m = newMachine(t)
	m.openRC(false, "exit 9")
	m.mustInstall(newKey())
	m.wantCalls("rc-update add vmbridge-guest default")
	m.wantOut("OpenRC does not run here", "next boot")
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
		t.Fatal(err)
	}
	m.wantCalls("rc-update show default", "rc-update delete vmbridge-guest default")
}

const initScript = "etc/init.d/vmbridge-guest"

func TestOpenRC(t *testing.T) {
	m := newMachine(t)
	m.openRC(true, serves)
	m.systemd(false) // installed, but not what runs
	m.mustInstall(newKey())
	m.wantCalls(
		"rc-update add vmbridge-guest default",
		"rc-service vmbridge-guest restart",
		"rc-service vmbridge-guest status",
	)
	m.wantMode(initScript, 0o755)
	m.wantOut("the agent serves")
	if m.has("run/vmbridge-guest.ready") {
		t.Error("a socket is left behind")
	}
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
		t.Fatal(err)
	}
	m.wantCalls(
		"rc-service --ifstarted vmbridge-guest stop",
		"rc-update show default",
		"rc-update delete vmbridge-guest default",
	)
	if m.has(initScript) {
		t.Error("the script is still there")
	}
}

// TestOpenRCFails: a supervisor that starts an agent which never serves counts for
// nothing.
func TestOpenRCFails(t *testing.T) {
	m := newMachine(t)
	m.openRC(true, ":")
	m.write("var/log/vmbridge-guest.log", strings.Repeat("an old line\n", 10000)+"no AF_VSOCK\n")
	config := m.config(newKey())
	config.StartTimeout = 10 * time.Millisecond
	err := install.Install(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "does not serve after 10ms") {
		t.Errorf("got %v", err)
	}
	m.wantOut("Its log: no AF_VSOCK")
	if n := strings.Count(m.out.String(), "Its log"); n != 5 {
		t.Errorf("%d lines of the log are shown", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := install.Install(ctx, m.config(newKey())); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestNoManager: what is hard to bring in is in place, and the rest is said.
func TestNoManager(t *testing.T) {
	m := newMachine(t)
	err := m.install(newKey())
	if !errors.Is(err, install.ErrNoManager) || !strings.Contains(err.Error(), install.Program+" serve") {
		t.Errorf("got %v", err)
	}
	if !m.has(install.Program) || !m.has(install.KeyFile) {
		t.Error("program or key is missing")
	}
	// A manager without its programs is none.
	m.write("run/systemd/system/x", "")
	m.write("run/openrc/softlevel", "")
	if err := m.install(nil); !errors.Is(err, install.ErrNoManager) {
		t.Errorf("got %v", err)
	}
	if err := install.Uninstall(t.Context(), m.config(nil)); err != nil || m.has(install.Program) || m.has("etc/vmbridge") {
		t.Errorf("uninstall: %v", err)
	}
}

// TestNoKey: nothing changes without a key that will do.
func TestNoKey(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*machine)
		is      error
		says    string
	}{
		"none":    {func(*machine) {}, install.ErrNoKey, "vmbridge guest key NAME | ssh root@vm vmbridge-guest install --key-stdin"},
		"bad":     {func(m *machine) { m.write(install.KeyFile, "x"); os.Chmod(m.at(install.KeyFile), 0o600) }, linkkey.ErrInvalid, "1 characters"},
		"exposed": {func(m *machine) { m.write(install.KeyFile, newKey().String()) }, linkkey.ErrExposed, "chmod 600"},
	} {
		m := newMachine(t)
		m.systemd(true)
		test.prepare(m)
		if err := m.install(nil); !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v", name, err)
		}
		if m.has("usr/local") || m.has(unit) || m.out.Len() > 0 {
			t.Errorf("%s: something has changed: %s", name, &m.out)
		}
		m.wantCalls()
	}
}

// TestForeignProgram: a program that somebody has put in place by hand, and may
// still write to, is replaced by one of root's even when it is the same.
func TestForeignProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	for name, change := range map[string]func(path string) error{
		"owner":  func(path string) error { return os.Chown(path, 1000, 1000) },
		"setuid": func(path string) error { return os.Chmod(path, 0o755|os.ModeSetuid) },
	} {
		m := newMachine(t)
		m.systemd(true)
		m.write(install.Program, "version 1")
		if err := change(m.at(install.Program)); err != nil {
			t.Fatal(err)
		}
		m.mustInstall(newKey())
		info, err := os.Lstat(m.at(install.Program))
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 || info.Mode() != 0o755 {
			t.Errorf("%s: the program is user %d's, with mode %v", name, owner, info.Mode())
		}
	}
}

// TestUninstallAfterCrash: an install that was killed while it wrote the unit
// leaves nothing behind either.
func TestUninstallAfterCrash(t *testing.T) {
	for _, whole := range []bool{false, true} {
		m := newMachine(t)
		m.systemd(true)
		m.openRC(false, ":")
		left := []string{
			"etc/systemd/system/.vmbridge-guest.service.new",
			"etc/init.d/.vmbridge-guest.new",
		}
		for _, path := range left {
			m.write(path, "hal")
		}
		if whole { // it was an upgrade
			left = append(left, unit, initScript)
			m.write(unit, "whole")
			m.write(initScript, "whole")
		}
		if err := install.Uninstall(t.Context(), m.config(nil)); err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if m.has(path) {
				t.Errorf("upgrade %t: %s is still there", whole, path)
			}
		}
	}
}

// TestRunningProgram: a program that runs can be replaced, and goes on.
func TestRunningProgram(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	m := newMachine(t)
	m.systemd(true)
	old, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	m.write(install.Program, string(old))
	cmd := exec.Command(m.at(install.Program), "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	m.mustInstall(newKey())
	if got := m.read(install.Program); got != "version 1" {
		t.Errorf("the program has %d bytes", len(got))
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the old program has ended: %v", err)
	}
}
