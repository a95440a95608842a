package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
)

const (
	storeOn  = `{"AutoStart": false, "EnhancedContainerIsolation": true}`
	storeOff = `{"AutoStart": false, "EnhancedContainerIsolation": false}`
)

// G2: Docker Desktop's isolation is on when the daemon starts: it runs, says why
// nothing is open, and refuses to be enabled, as does up --enable, which starts
// nothing.
func TestG2OnAtStart(t *testing.T) {
	t.Parallel()
	b := newIsolationBed(t, bedConfig{})
	put(t, b.store(), storeOn)
	evidence := []string{b.store(), "EnhancedContainerIsolation is true", "Use Enhanced Container Isolation"}

	// A home in which nothing has been yet.
	fresh := *b
	fresh.home = filepath.Join(b.dir, "fresh")
	must(t, os.Mkdir(fresh.home, 0o700))
	fresh.isRefused([]string{"up", "--enable", "--link", "vm=" + b.linkURL()}, append(evidence, "--enable")...)
	fresh.isRefused([]string{"enable"}, evidence...)
	if files, err := os.ReadDir(fresh.home); err != nil || len(files) > 0 {
		t.Errorf("what was refused has left %v, %v", files, err)
	}

	b.startAgent()
	served := b.serve("127.0.0.1:7000")
	b.startDaemon()
	b.awaitLink()
	s := b.awaitIsolation(control.Blocked, "on", evidence...)
	if err := has(s.HostNetworkingReason, evidence); err != nil {
		t.Errorf("the reason: %v", err)
	}
	b.view.port("tcp 127.0.0.1:7000", control.PortDenied)
	served.staysClosed()
	b.isRefused([]string{"enable"}, evidence...)
	b.isRefused([]string{"settings", "set", "host_networking.enabled", "true"}, evidence...)
	b.isRefused([]string{"up", "--enable"}, evidence...)
	if b.awaitIsolation(control.Blocked, "on"); !b.daemon.running() {
		t.Error("the daemon has ended")
	}
	served.staysClosed()
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
	// What it waits for, and then what it was told before.
	must(t, os.Remove(b.store()))
	served.opens()
	b.awaitIsolation(control.On, "off") // by the guest's word
	b.exits(0, "off", "disable")
	put(t, b.store(), storeOn)
	b.awaitIsolation(control.Off, "on")
}

// G2, C4: isolation is turned on later, in each way in which a file can change:
// what is open closes within 2 s, with its flows. It is turned off: what was
// open comes back by itself.
func TestG2TurnedOnLater(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name  string
		first string // of the file; none when empty
		write func(t testing.TB, path, text string)
	}{
		{"in place", storeOff, put},
		{"renamed over", storeOff, rename},
		{"with its directory", "", put},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			b := newIsolationBed(t, bedConfig{})
			if way.first != "" {
				put(t, b.store(), way.first)
			}
			b.startAgent()
			b.startDaemon()
			b.awaitLink()
			served := b.serve("127.0.0.1:7000")
			served.opens()
			for range 2 {
				began := time.Now()
				way.write(t, b.store(), storeOn)
				t.Logf("closed after %v", served.closes(began))
				b.awaitIsolation(control.Blocked, "on", b.store(), "EnhancedContainerIsolation is true")
				began = time.Now()
				way.write(t, b.store(), storeOff)
				t.Logf("open again after %v", served.opens())
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("it took %v to open again", took)
				}
				b.awaitIsolation(control.On, "off", b.store())
			}
		})
	}
}

// G2: a file that says that isolation is on is written anew, again and again, not
// all at once. Nothing is open for a moment.
func TestG2NoFlicker(t *testing.T) {
	t.Parallel()
	b := newIsolationBed(t, bedConfig{})
	put(t, b.store(), storeOn)
	b.startAgent()
	served := b.serve("127.0.0.1:7000")
	b.startDaemon()
	b.awaitLink()
	b.awaitIsolation(control.Blocked, "on")
	served.staysClosedWhile(b.store(), 150*time.Millisecond, storeOn[:len(storeOn)/2], storeOn)
	b.awaitIsolation(control.Blocked, "on")
	served.wasNeverOpen()
	if n := strings.Count(b.daemon.output(), "host networking is on"); n > 0 {
		t.Errorf("host networking was on %d times", n)
	}
	put(t, b.store(), storeOff) // else the test says nothing
	served.opens()
}

// desktopCase is files of Docker Desktop and what they mean.
type desktopCase struct {
	name, store, older, admin string
	networking, isolation     string
	evidence                  []string // of one line of it
}

// G2: every source of evidence on this host, as the real programs see it: what
// is on blocks, and names file, key and who locked it; what does not say is
// unknown, and blocks nothing.
func TestG2Sources(t *testing.T) {
	t.Parallel()
	b := newIsolationBed(t, bedConfig{etc: true})
	b.ownUsrShare()
	b.startAgent()
	b.startDaemon()
	b.awaitLink()
	served := b.serve("127.0.0.1:7000")
	served.opens()
	const yes = `"EnhancedContainerIsolation": true`
	for _, c := range []desktopCase{
		{name: "key missing", store: `{"Cpus": 4}`,
			networking: control.On, isolation: "unknown", evidence: []string{b.store(), "does not say"}},
		{name: "garbage", store: "\x00\x1b[31mgarbage\n",
			networking: control.On, isolation: "unknown", evidence: []string{b.store(), "not JSON"}},
		{name: "another type", store: `{"EnhancedContainerIsolation": 1}`,
			networking: control.On, isolation: "unknown", evidence: []string{b.store(), "neither true nor false"}},
		{name: "store", store: "{" + yes + "}",
			networking: control.Blocked, isolation: "on", evidence: []string{b.store(), "EnhancedContainerIsolation is true"}},
		{name: "the other spelling", store: `{"enhancedContainerIsolation": true}`,
			networking: control.Blocked, isolation: "on", evidence: []string{b.store(), "enhancedContainerIsolation is true"}},
		{name: "both, in contradiction", store: `{"enhancedContainerIsolation": false, ` + yes + `}`,
			networking: control.Blocked, isolation: "on", evidence: []string{b.store(), "EnhancedContainerIsolation is true"}},
		{name: "locked in the store", store: `{"EnhancedContainerIsolation": {"locked": true, "value": true}}`,
			networking: control.Blocked, isolation: "on", evidence: []string{b.store(), "locked by", "administrator"}},
		{name: "older file", older: `{"enhancedContainerIsolation": true}`,
			networking: control.Blocked, isolation: "on", evidence: []string{b.older(), "enhancedContainerIsolation is true"}},
		{name: "off", store: storeOff, networking: control.On, isolation: "off", evidence: []string{b.store()}},
		{name: "locked on by the administrator", store: storeOff, admin: `{"enhancedContainerIsolation": {"locked": true, "value": true}}`,
			networking: control.Blocked, isolation: "on", evidence: []string{adminFile, "locked by the administrator's " + adminFile, "have the administrator"}},
		{name: "locked off by the administrator", store: "{" + yes + "}", admin: `{"enhancedContainerIsolation": {"locked": true, "value": false}}`,
			networking: control.On, isolation: "off", evidence: []string{adminFile}},
		{name: "the administrator's default", admin: `{"enhancedContainerIsolation": {"locked": false, "value": true}}`,
			networking: control.Blocked, isolation: "on", evidence: []string{adminFile, "default"}},
		{name: "nothing", networking: control.On, isolation: "off"},
	} {
		for path, text := range map[string]string{b.store(): c.store, b.older(): c.older, b.etc.path(adminFile): c.admin} {
			if text == "" {
				err := os.Remove(path)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				continue
			}
			put(t, path, text)
		}
		b.awaitIsolation(c.networking, c.isolation, c.evidence...)
		if c.networking == control.On {
			served.opens()
		} else {
			served.staysClosed()
			b.isRefused([]string{"enable"}, c.evidence...)
		}
		out, err := b.vmbridge("status")
		must(t, err)
		noControl(t, c.name, out)
		if t.Failed() {
			t.Fatalf("with the files of %q", c.name)
		}
	}
}

// G2: Docker Desktop's own host networking next to this one is a warning, and
// blocks nothing.
func TestG2OtherForwarder(t *testing.T) {
	t.Parallel()
	b := startIsolationBed(t, bedConfig{})
	served := b.serve("127.0.0.1:7000")
	served.opens()
	for i, key := range []string{"HostNetworkingEnabled", "hostNetworkingEnabled"} {
		put(t, b.store(), fmt.Sprintf(`{%q: true, "n": %d}`, key, i))
		b.awaitWarning(key + " is true")
		s, err := b.told()
		must(t, err)
		if s.HostNetworking != control.On || !anyHas(s.Warnings, []string{b.store(), "Docker Desktop's own host networking", "Enable host networking"}) {
			t.Errorf("status: %+v", s)
		}
		must(t, try(b.host, "tcp", "127.0.0.1:7000"))
	}
	b.exits(0, "on", "enable")
	must(t, os.Remove(b.store()))
	b.awaitNoWarning()
}
