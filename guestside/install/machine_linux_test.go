package install_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/guestside/install"
	"github.com/vmbridge/vmbridge/guestside/ready"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// machine is a root directory with service managers that note their calls.
type machine struct {
	t    *testing.T
	root string
	out  bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	m.write("program", "version 1")
	return m
}

func (m *machine) at(path string) string { return filepath.Join(m.root, path) }

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.at(path)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.at(path), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.at(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) has(path string) bool {
	_, err := os.Lstat(m.at(path))
	return err == nil
}

// fake makes a program that notes its call, and then fails where there is a file
// that says so, or runs script.
func (m *machine) fake(path, script string) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(path, "#!/bin/sh\nroot="+m.root+"\nself="+self+`
name=${0##*/}
echo "$name $*" >> "$root/calls"
if [ -e "$root/fail-$name-$1" ] || [ -e "$root/fail-$name-$2" ]; then
	echo "$name is sorry"; echo "and has more to say"
	exit 5
fi
`+script+"\n")
}

// systemd makes the machine one of systemd; running or not.
func (m *machine) systemd(running bool) {
	m.fake("usr/bin/systemctl", "")
	m.fake("usr/bin/journalctl", `printf 'one\ntwo\nthree\nfour\nfive\nthe last \033[1mwords\n'`)
	if running {
		m.write("run/systemd/system/x", "")
	}
}

// openRC makes it one of OpenRC; what its rc-service does is start.
func (m *machine) openRC(running bool, start string) {
	m.fake("sbin/rc-update", `case $1 in
add) echo " $2 | $3" > "$root/level";;
delete) rm "$root/level";;
show) cat "$root/level" 2>/dev/null;;
esac; exit 0`)
	m.fake("sbin/rc-service", `case $2 in restart) `+start+`;; esac; exit 0`)
	if running {
		m.write("run/openrc/softlevel", "default")
	}
}

// serves is an agent that serves.
const serves = `env ` + roleEnv + `=ready ` + ready.Variable + `="$root/run/vmbridge-guest.ready" "$self"`

// calls gives the programs that have been called since it was asked last.
func (m *machine) calls() string {
	m.t.Helper()
	text := m.read("calls")
	if err := os.RemoveAll(m.at("calls")); err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

func (m *machine) wantCalls(want ...string) {
	m.t.Helper()
	if got := m.calls(); got != strings.Join(want, "\n") {
		m.t.Errorf("called:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func (m *machine) config(key *linkkey.Key) install.Config {
	return install.Config{Root: m.root, Executable: m.at("program"), Key: key, Out: &m.out, StartTimeout: 20 * time.Second}
}

func (m *machine) install(key *linkkey.Key) error {
	m.t.Helper()
	m.out.Reset()
	return install.Install(m.t.Context(), m.config(key))
}

func (m *machine) mustInstall(key *linkkey.Key) {
	m.t.Helper()
	if err := m.install(key); err != nil {
		m.t.Fatalf("%v\n%s", err, &m.out)
	}
}

func (m *machine) wantOut(want ...string) {
	m.t.Helper()
	for _, text := range want {
		if !strings.Contains(m.out.String(), text) {
			m.t.Errorf("%q is missing in:\n%s", text, &m.out)
		}
	}
}

func (m *machine) wantMode(path string, want fs.FileMode) {
	m.t.Helper()
	info, err := os.Lstat(m.at(path))
	if err != nil || info.Mode().Perm() != want {
		m.t.Errorf("%s: %v, %v; want %v", path, info, err, want)
	}
}

func newKey() *linkkey.Key {
	key := linkkey.New()
	return &key
}
