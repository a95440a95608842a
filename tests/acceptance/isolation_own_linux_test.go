package acceptance

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
)

const (
	ownKey = "isolation.enhanced_container_isolation"
	ownOn  = "isolation: {enhanced_container_isolation: true}"
)

// G2, C4: our own setting, from every place in which it can be: what was open
// closes, and the message names the place.
func TestG2OwnSetting(t *testing.T) {
	t.Parallel()
	b := startIsolationBed(t, bedConfig{etc: true})
	served := b.serve("127.0.0.1:7000")
	served.opens()
	const fact = ownKey + " is true"
	locked := locked(ownKey, "true")
	for _, c := range []struct {
		name      string
		on, off   func()
		isLocked  bool
		evidences []string
	}{
		{"file", func() { b.write(b.settingsText(ownOn)) }, func() { b.write(b.settingsText("")) },
			false, []string{b.settingsPath() + ":3", "set " + ownKey + " to false"}},
		{"command", func() { b.set(ownKey, "true") }, func() { b.set(ownKey, "false") },
			false, []string{b.settingsPath() + ":", "set " + ownKey + " to false"}},
		{"unset", func() { b.set(ownKey, "true") }, func() { b.exits(0, "is false", "settings", "unset", ownKey) },
			false, []string{b.settingsPath() + ":"}},
		{"policy", func() { b.writePolicy(locked) }, b.removePolicy,
			true, []string{policyPath, "locked by the administrator", "have the administrator change it"}},
		{"policy's default", func() { b.writePolicy(strings.ReplaceAll(locked, `"locked": true`, `"locked": false`)) }, func() { b.set(ownKey, "false") },
			false, []string{policyPath, "set " + ownKey + " to false"}},
	} {
		began := time.Now()
		c.on()
		t.Logf("%s: closed after %v", c.name, served.closes(began))
		evidence := append(c.evidences, fact)
		s := b.awaitIsolation(control.Blocked, "on", evidence...)
		if err := has(s.HostNetworkingReason, evidence); err != nil {
			t.Errorf("%s: the reason: %v", c.name, err)
		}
		if err := has(s.HostNetworkingReason, []string{"locked by"}); (err == nil) != c.isLocked {
			t.Errorf("%s: the reason: %q", c.name, s.HostNetworkingReason)
		}
		b.isRefused([]string{"enable"}, evidence...)
		if c.isLocked {
			b.isRefused([]string{"settings", "set", ownKey, "false"}, ownKey, policyPath)
			b.isRefused([]string{"settings", "unset", ownKey}, ownKey, policyPath)
		}
		c.off()
		t.Logf("%s: open again after %v", c.name, served.opens())
		if t.Failed() {
			t.Fatalf("with the setting in the %s", c.name)
		}
	}
}

// G2: our own setting, in the environment of the daemon and of commands.
func TestG2OwnVariable(t *testing.T) {
	t.Parallel()
	const variable = "VMBRIDGE_ISOLATION_ENHANCED_CONTAINER_ISOLATION"
	b := newIsolationBed(t, bedConfig{environ: []string{variable + "=true"}})
	evidence := []string{variable, ownKey + " is true"}
	b.isRefused([]string{"enable"}, evidence...)
	b.isRefused([]string{"up", "--enable"}, evidence...)
	b.startAgent()
	served := b.serve("127.0.0.1:7000")
	b.startDaemon()
	b.awaitLink()
	b.view.port("tcp 127.0.0.1:7000", control.PortDenied)
	b.awaitIsolation(control.Blocked, "on", evidence...)
	// The file is weaker, and the command says so.
	b.set(ownKey, "false")
	b.awaitIsolation(control.Blocked, "on", evidence...)
	served.staysClosed()
	b.daemon.terminate()
	b.config.environ = append(b.config.environ, variable+"=")
	b.startDaemon()
	served.opens()
}

// G2: an editor writes the settings file in place, which is empty for a moment.
// That opens nothing.
func TestG2OwnNoFlicker(t *testing.T) {
	t.Parallel()
	b := newIsolationBed(t, bedConfig{settings: ownOn})
	b.startAgent()
	served := b.serve("127.0.0.1:7000")
	// The toggle is not the file's, or an empty one would turn it off.
	b.config.environ = append(b.config.environ, "VMBRIDGE_HOST_NETWORKING_ENABLED=true", "VMBRIDGE_LINKS=vm="+b.linkURL())
	b.startDaemon()
	b.awaitLink()
	b.awaitIsolation(control.Blocked, "on")
	served.staysClosedWhile(b.settingsPath(), 100*time.Millisecond, b.settingsText(ownOn))
	b.awaitIsolation(control.Blocked, "on")
	served.wasNeverOpen()
	b.write(b.settingsText("")) // else the test says nothing
	served.opens()
}

// G1: the same for a file that the toggle is in: what is open stays open, and so
// do its flows, until the file stays empty.
func TestG1EmptyForAMoment(t *testing.T) {
	t.Parallel()
	b := startIsolationBed(t, bedConfig{})
	served := b.serve("127.0.0.1:7000")
	served.opens()
	text := b.settingsText("")
	for range 5 {
		must(t, os.Truncate(b.settingsPath(), 0))
		for range 10 {
			for _, flow := range served.flows {
				must(t, hello(flow))
			}
			must(t, try(b.host, "tcp", served.address))
		}
		must(t, os.WriteFile(b.settingsPath(), []byte(text), 0o600))
		b.awaitNetworking(followTime, control.On)
	}
	if n := strings.Count(b.daemon.output(), "host networking is off"); n > 0 {
		t.Errorf("host networking was off %d times", n)
	}
	began := time.Now()
	must(t, os.Truncate(b.settingsPath(), 0))
	t.Logf("closed after %v", served.closes(began))
	b.awaitNetworking(followTime, control.Off)
}
