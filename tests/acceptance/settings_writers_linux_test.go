package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// writersKeys are keys that writers change at the same time, each with a value
// that is not the default.
var writersKeys = []struct{ key, value string }{
	{"exposure", "loopback"},
	{"localhost_twin", "true"},
	{"ports.ignore", "[22/tcp]"},
	{"ports.deny", "[7001]"},
	{"ports.ignore_processes", "[sshd]"},
	{"host_reach.deny", "[7100]"},
	{"limits.flows", "1000"},
	{"limits.listeners", "1000"},
	{"limits.udp_idle", "90s"},
	{"limits.memory", "64MiB"},
}

// Ten commands at once, each about another key, lose nothing of each other's,
// neither with a daemon nor without one; comments stay.
func TestWritersTogether(t *testing.T) {
	t.Parallel()
	const comment = "# of the user's own\n"
	b := startBed(t, bedConfig{fromFile: true, settings: comment})
	for _, running := range []bool{true, false} {
		if !running {
			b.daemon.terminate()
		}
		for range 3 {
			must(t, wait.Together(len(writersKeys), func(i int) error {
				_, err := b.vmbridge("settings", "set", writersKeys[i].key, writersKeys[i].value)
				return err
			}))
			for _, k := range writersKeys {
				b.exits(0, k.value+"\n", "settings", "get", k.key)
			}
			must(t, wait.Together(len(writersKeys), func(i int) error {
				_, err := b.vmbridge("settings", "unset", writersKeys[i].key)
				return err
			}))
			text, err := readFile(b.settingsPath())
			must(t, err)
			if !strings.Contains(text, comment) || !strings.Contains(text, b.linkEntry()) {
				t.Errorf("the file holds\n%s", text)
			}
			for _, k := range writersKeys {
				if name := k.key[strings.IndexByte(k.key, '.')+1:]; strings.Contains(text, name+":") {
					t.Errorf("%s is left in\n%s", k.key, text)
				}
			}
		}
	}
}

// The daemon is killed while settings are being written through it: the file is
// good at every moment, nothing is left beside it, and what the daemon had
// answered for is in it.
func TestWritersKilled(t *testing.T) {
	t.Parallel()
	b := startBed(t, bedConfig{fromFile: true})
	for i := range 10 {
		client := control.NewClient(b.home)
		var answered atomic.Int64
		writing := make(chan struct{})
		go func() {
			defer close(writing)
			for n := int64(1000); ; n++ {
				if client.Set(b.background(), "limits.flows", fmt.Sprint(n)) != nil {
					return // the daemon is dead
				}
				answered.Store(n)
			}
		}()
		wait.Eventually(t, patience, "it is being written", func() error {
			if n := answered.Load(); n < int64(1001+i) { // each time at another moment
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		b.daemon.kill()
		<-writing
		out, err := b.vmbridge("settings", "get", "limits.flows") // which reads all of it
		must(t, err)
		var got int64
		_, err = fmt.Sscan(out, &got)
		must(t, err)
		if last := answered.Load(); got != last && got != last+1 {
			t.Errorf("the file has %d, the last answer was for %d", got, last)
		}
		b.startDaemon()
		b.awaitLink()
		if s, err := b.status(); err != nil || len(s.Warnings) > 0 {
			t.Errorf("the next daemon warns of %q, %v", s.Warnings, err)
		}
	}
	b.set("limits.flows", "2000")
	entries, err := os.ReadDir(b.home)
	must(t, err)
	var beside []string
	for _, e := range entries {
		if strings.Contains(e.Name(), filepath.Base(b.settingsPath())) {
			beside = append(beside, e.Name())
		}
	}
	t.Logf("beside each other: %q", beside)
	if len(beside) > 2 { // the file and its lock
		t.Errorf("%q are left", beside)
	}
}

// A command that is killed while it writes leaves a good file, too, and nothing
// that piles up.
func TestWritersCommandKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedConfig{fromFile: true})
	for i := range 60 {
		p := b.spawn(b.host, "set", b.command("settings", "set", "limits.flows", fmt.Sprint(1000+i)))
		// Somewhere between its start and its end, each time a little later.
		looks := 0
		wait.Eventually(t, patience, "a moment of the command's life", func() error {
			if looks++; looks <= i && p.running() {
				return fmt.Errorf("look %d", looks)
			}
			return nil
		})
		p.kill()
		b.exits(0, "", "settings", "get", "limits.flows")
	}
	b.set("limits.flows", "2000")
	b.exits(0, "2000\n", "settings", "get", "limits.flows")
	entries, err := os.ReadDir(b.home)
	must(t, err)
	if len(entries) > 4 {
		t.Errorf("%v are left", entries)
	}
}
