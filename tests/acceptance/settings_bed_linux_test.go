package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// followTime is how long a change of a settings file may take until it is in
// force. The daemon looks within half a second; the rest is for a machine on
// which other tests are at work.
const followTime = 2 * time.Second

// settingsText is a settings file of a bed whose daemon has no flags: the toggle
// on, the bed's link, and more.
func (b *bed) settingsText(more string) string {
	return b.settingsTextWith([]string{b.linkEntry()}, more)
}

func (b *bed) settingsTextWith(links []string, more string) string {
	return "host_networking: {enabled: true}\nlinks: [" + strings.Join(links, ", ") + "]\n" + more + "\n"
}

// linkEntry is the bed's link as settings have it.
func (b *bed) linkEntry() string {
	return fmt.Sprintf("{name: %s, url: %q}", b.linkName(), b.linkURL())
}

// giveKey gives the home a copy of the bed's key, for a link.
func (b *bed) giveKey(link string) {
	b.t.Helper()
	dir := filepath.Join(b.home, "keys")
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		must(b.t, err)
	}
	must(b.t, os.WriteFile(filepath.Join(dir, link), []byte(b.key.String()+"\n"), 0o600))
}

func (b *bed) settingsPath() string { return filepath.Join(b.home, "settings.yaml") }

// write replaces the settings file as editors do: another file takes its name.
func (b *bed) write(text string) {
	b.t.Helper()
	rename(b.t, b.settingsPath(), text)
	if b.config.ordinaryUser {
		must(b.t, os.Chown(b.settingsPath(), nobody, nobody))
	}
}

// rename puts a new file in the place of another.
func rename(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(t, os.Rename(path+".new", path))
}

// set is vmbridge settings set, which must succeed.
func (b *bed) set(key, value string) {
	b.t.Helper()
	_, err := b.vmbridge("settings", "set", key, value)
	must(b.t, err)
}

// value is what the daemon says of a setting.
func (b *bed) value(key string) (control.Setting, error) {
	s, err := control.NewClient(b.home).Settings(b.t.Context())
	if err != nil {
		return control.Setting{}, err
	}
	for _, v := range s.Values {
		if v.Key == key {
			return v, nil
		}
	}
	return control.Setting{}, fmt.Errorf("there is no %s", key)
}

// exit checks how a command ended, and what it said on standard error.
func (b *bed) exits(status int, text string, args ...string) {
	b.t.Helper()
	out, err := b.vmbridge(args...)
	exit := (*exec.ExitError)(nil)
	switch {
	case status == 0:
		if err != nil || !strings.Contains(out, text) {
			b.t.Errorf("vmbridge %v prints %q, %v; want %q", args, out, err, text)
		}
	case !errors.As(err, &exit) || exit.ExitCode() != status || !strings.Contains(err.Error(), text):
		b.t.Errorf("vmbridge %v gives %v; want exit status %d and %q", args, err, status, text)
	}
}

// awaitNetworking waits until host networking stands so, and gives the reason.
func (b *bed) awaitNetworking(within time.Duration, state string) (reason string) {
	b.t.Helper()
	wait.Eventually(b.t, within, "host networking is "+state, func() error {
		s, err := b.status()
		if err == nil && s.HostNetworking != state {
			err = fmt.Errorf("it is %s: %s", s.HostNetworking, s.HostNetworkingReason)
		}
		reason = s.HostNetworkingReason
		return err
	})
	return reason
}

// awaitWarning waits until status warns of something.
func (b *bed) awaitWarning(text string) {
	b.t.Helper()
	wait.Eventually(b.t, followTime, "status warns of "+text, func() error {
		s, err := b.status()
		if err == nil && !strings.Contains(strings.Join(s.Warnings, "\n"), text) {
			err = fmt.Errorf("it warns of %q", s.Warnings)
		}
		return err
	})
}

// awaitNoWarning waits until status warns of nothing.
func (b *bed) awaitNoWarning() {
	b.t.Helper()
	wait.Eventually(b.t, followTime, "status does not warn", func() error {
		s, err := b.status()
		if err == nil && len(s.Warnings) > 0 {
			err = fmt.Errorf("it warns of %q", s.Warnings)
		}
		return err
	})
}

// another is a guest of its own beside a bed's: the bed of the same host and
// daemon, whose guest is another one. Its link has yet to be named to the daemon.
func (b *bed) another(name string) *bed {
	b.t.Helper()
	o := *b
	o.link = name
	o.guest = newNamespace(b.t)
	o.maker = o.startMaker()
	if b.config.fromFile {
		o.giveKey(name)
	}
	o.startAgent()
	return &o
}

// listed finds a port of the bed's link.
func (b *bed) listed(name string) (control.Port, error) {
	ports, err := control.NewClient(b.home).Ports(b.t.Context())
	if err != nil {
		return control.Port{}, err
	}
	for _, p := range ports {
		if p.Link == b.linkName() && portName(p) == name {
			return p, nil
		}
	}
	return control.Port{}, fmt.Errorf("%s of %s is not listed", name, b.linkName())
}

// awaitPort waits until a port of the bed's link is in a state.
func (b *bed) awaitPort(name, state string) (p control.Port) {
	b.t.Helper()
	wait.Eventually(b.t, patience, fmt.Sprintf("%s of %s is %s", name, b.linkName(), state), func() (err error) {
		p, err = b.listed(name)
		if err == nil && p.State != state {
			err = fmt.Errorf("it is %s: %s", p.State, p.Reason)
		}
		return err
	})
	return p
}

// awaitLinkState waits until a link is in a state, and gives it.
func (b *bed) awaitLinkState(name, state string) (link control.Link) {
	b.t.Helper()
	wait.Eventually(b.t, patience, "link "+name+" is "+state, func() error {
		s, err := b.status()
		if err != nil {
			return err
		}
		for _, l := range s.Links {
			if l.Name == name && l.State == state {
				link = l
				return nil
			}
		}
		return fmt.Errorf("there are %+v", s.Links)
	})
	return link
}

// background is for what a cleanup asks of the daemon: the test's own context has
// ended by then.
func (b *bed) background() context.Context { return context.WithoutCancel(b.t.Context()) }

// awaitLinks waits until there are so many links.
func (b *bed) awaitLinks(n int) {
	b.t.Helper()
	wait.Eventually(b.t, patience, fmt.Sprintf("there are %d links", n), func() error {
		s, err := b.status()
		if err == nil && len(s.Links) != n {
			err = fmt.Errorf("%+v", s.Links)
		}
		return err
	})
}
