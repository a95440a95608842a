package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// Where things lie in a guest.
const (
	Program = "/usr/local/bin/vmbridge-guest"
	KeyFile = "/etc/vmbridge/link.key"
)

// service is its name for every manager.
const service = "vmbridge-guest"

var (
	// ErrNoKey says that the guest has no link key and that none was given.
	ErrNoKey = errors.New("no link key")
	// ErrNoManager says that program and key are in place but that nothing
	// here could start the agent.
	ErrNoManager = errors.New("no service manager")
	// ErrBusy says that another install or uninstall is at work.
	ErrBusy = errors.New("another install or uninstall is running")
)

// Config says what to install, and where.
type Config struct {
	// Root is the guest's root directory: "/", except in tests.
	Root string
	// Executable is the program to install. Empty means the running one.
	Executable string
	// Key is the new link key; nil keeps the one that is there.
	Key *linkkey.Key
	// StartTimeout is how long the agent may take to serve. Zero means 30 s: it
	// takes 20 ms on a laptop and some seconds in an emulated machine that boots.
	StartTimeout time.Duration
	// Out is told each step, a line each.
	Out io.Writer
}

// guest is the machine that is changed.
type guest struct {
	Config
	commands commands
}

func newGuest(c Config) *guest {
	if c.Executable == "" {
		c.Executable = "/proc/self/exe"
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 30 * time.Second
	}
	return &guest{Config: c, commands: newCommands(c.Root)}
}

// at is where a path of the guest lies.
func (g *guest) at(path string) string { return filepath.Join(g.Root, path) }

func (g *guest) say(format string, args ...any) { fmt.Fprintf(g.Out, format+"\n", args...) }

// Install installs or upgrades the agent, and returns when it serves.
func Install(ctx context.Context, config Config) error {
	g := newGuest(config)
	if g.Key == nil {
		if err := g.checkKey(); err != nil {
			return err
		}
	}
	unlock, err := g.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := g.installProgram(); err != nil {
		return fmt.Errorf("program: %w", err)
	}
	if err := g.installKey(); err != nil {
		return fmt.Errorf("link key: %w", err)
	}
	m := g.findManager()
	if m == nil {
		return fmt.Errorf("%w: there is neither systemd nor OpenRC: have the guest run this as root at boot: %s serve",
			ErrNoManager, Program)
	}
	return g.installService(ctx, m)
}

// checkKey checks the key that is to be kept.
func (g *guest) checkKey() error {
	_, err := linkkey.Load(g.at(KeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: on the host run: vmbridge guest key NAME | ssh root@vm vmbridge-guest install --key-stdin", ErrNoKey)
	}
	return err
}

func (g *guest) installProgram() error {
	path := g.at(Program)
	same, err := sameContent(g.Executable, path)
	if err != nil {
		return err
	}
	if same {
		g.say("%s is this version already", Program)
		return nil
	}
	from, err := os.Open(g.Executable)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := replace(path, 0o755, from); err != nil {
		return err
	}
	g.say("Installed %s", Program)
	return nil
}

func (g *guest) installKey() error {
	if g.Key == nil {
		g.say("Kept the link key in %s", KeyFile)
		return nil
	}
	path := g.at(KeyFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := replace(path, 0o600, strings.NewReader(g.Key.String()+"\n")); err != nil {
		return err
	}
	g.say("Wrote the link key to %s", KeyFile)
	return nil
}

func (g *guest) installService(ctx context.Context, m manager) error {
	unit := m.unit()
	if err := os.MkdirAll(filepath.Dir(g.at(unit.path)), 0o755); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if err := replace(g.at(unit.path), unit.mode, strings.NewReader(unit.text)); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	g.say("Wrote %s", unit.path)
	if err := m.enable(ctx); err != nil {
		return fmt.Errorf("enable the service: %w", err)
	}
	if !m.running() {
		g.say("Enabled the service %s; %s does not run here, so the next boot starts it", service, m.name())
		return nil
	}
	g.say("Enabled the service %s", service)
	if err := m.restart(ctx); err != nil {
		g.sayLog(ctx, m)
		return fmt.Errorf("start the service: %w", err)
	}
	g.say("Started it: the agent serves")
	return nil
}

// maxLine is how much of a line of the log is shown, in bytes.
const maxLine = 1024

// sayLog shows what an agent that does not serve has logged last.
func (g *guest) sayLog(ctx context.Context, m manager) {
	lines, err := m.lastWords(ctx)
	if err != nil {
		g.say("Its log cannot be read: %s", err)
	}
	for _, line := range lines {
		g.say("Its log: %s", message.Clean(line, maxLine))
	}
}

// Uninstall takes out what Install puts in, as far as it is there.
func Uninstall(ctx context.Context, config Config) error {
	g := newGuest(config)
	unlock, err := g.lock()
	if err != nil {
		return err
	}
	defer unlock()
	found := false
	for _, m := range g.managers() {
		unit := m.unit()
		if _, err := os.Lstat(g.at(unit.path)); errors.Is(err, fs.ErrNotExist) {
			// A crash may have come before it had its name.
			removed, err := remove(g.at(unit.path))
			if err != nil {
				return fmt.Errorf("service: %w", err)
			}
			found = found || removed
			continue
		}
		if err := m.disable(ctx); err != nil {
			return fmt.Errorf("stop the service: %w", err)
		}
		if _, err := remove(g.at(unit.path)); err != nil {
			return fmt.Errorf("service: %w", err)
		}
		g.say("Stopped and removed the service, %s", unit.path)
		found = true
		if err := m.forget(ctx); err != nil {
			return fmt.Errorf("service: %w", err)
		}
	}
	for _, path := range []string{Program, KeyFile} {
		removed, err := remove(g.at(path))
		if err != nil {
			return err
		}
		if removed {
			g.say("Removed %s", path)
			found = true
		}
	}
	// What else lies in the key's directory is not ours.
	_ = os.Remove(filepath.Dir(g.at(KeyFile)))
	if !found {
		g.say("Nothing of vmbridge is installed here")
	}
	return nil
}
