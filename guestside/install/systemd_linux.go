package install

import (
	"context"
	_ "embed"
	"os"
	"strconv"
)

//go:embed vmbridge-guest.service
var systemdUnit string

type systemd struct{ *guest }

func (systemd) name() string { return "systemd" }

func (s systemd) installed() bool {
	_, ok := s.commands.find("systemctl")
	return ok
}

// running asks what sd_booted(3) asks.
func (s systemd) running() bool {
	info, err := os.Lstat(s.at("/run/systemd/system"))
	return err == nil && info.IsDir() && s.installed()
}

func (systemd) unit() unitFile {
	return unitFile{path: "/etc/systemd/system/" + service + ".service", mode: 0o644, text: systemdUnit}
}

func (s systemd) enable(ctx context.Context) error {
	if err := s.forget(ctx); err != nil {
		return err
	}
	return s.systemctl(ctx, "enable", service+".service")
}

// restart needs no waiting of its own: the unit's type is notify.
func (s systemd) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	defer cancel()
	if err := s.systemctl(ctx, "restart", service+".service"); err != nil {
		return err
	}
	return s.systemctl(ctx, "is-active", service+".service")
}

func (s systemd) lastWords(ctx context.Context) ([]string, error) {
	log, err := s.commands.run(ctx, "journalctl", "--unit", service+".service", "--lines", strconv.Itoa(shownLines),
		"--output", "cat", "--no-pager")
	if err != nil {
		return nil, err
	}
	return lastLines(log), nil
}

func (s systemd) disable(ctx context.Context) error {
	if s.running() {
		return s.systemctl(ctx, "disable", "--now", service+".service")
	}
	if s.installed() {
		return s.systemctl(ctx, "disable", service+".service")
	}
	return nil
}

// forget has systemd read the units again.
func (s systemd) forget(ctx context.Context) error {
	if !s.running() {
		return nil
	}
	return s.systemctl(ctx, "daemon-reload")
}

func (s systemd) systemctl(ctx context.Context, args ...string) error {
	_, err := s.commands.run(ctx, "systemctl", args...)
	return err
}
