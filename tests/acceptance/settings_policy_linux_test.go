package acceptance

import (
	"encoding/json"
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

// policyTime is how long a change of the administrator's file may take.
const policyTime = 2 * time.Second

// startPolicy makes a bed whose policy the test writes. Its port 7000 is open.
func startPolicy(t *testing.T, config bedConfig) *bed {
	t.Helper()
	config.etc, config.fromFile = true, true
	b := startBed(t, config)
	b.spawnServer("7000")
	b.servesBoth("7000")
	return b
}

// G2: host networking that the administrator has locked off goes off while it
// runs, stays off whatever the user does, and comes back when the policy goes.
func TestG2LockedOff(t *testing.T) {
	asBothWithPolicy(t, func(t *testing.T, b *bed) {
		flow := b.dial("tcp", "127.0.0.1:7000")
		must(t, hello(flow))
		for range 2 {
			b.writePolicy(locked("host_networking.enabled", "false"))
			if reason := b.awaitNetworking(policyTime, control.Off); !strings.Contains(reason, policyPath) {
				t.Errorf("the reason is %q", reason)
			}
			must(t, closed(b.host, "tcp", "127.0.0.1:7000"))
			if err := isOver(flow); err != nil {
				t.Error(err)
			}
			b.exits(3, policyPath, "enable")
			b.exits(3, policyPath, "settings", "set", "host_networking.enabled", "true")
			b.exits(3, policyPath, "settings", "unset", "host_networking.enabled")
			b.exits(3, policyPath, "disable") // it is not the user's to say
			b.exits(0, "false", "settings", "get", "host_networking.enabled")
			b.exits(0, policyPath, "status")
			if v, err := b.value("host_networking.enabled"); err != nil || !v.Locked || v.Origin != "policy" || v.Place != policyPath {
				t.Errorf("%+v, %v", v, err)
			}
			b.write(b.settingsText("# again: enabled"))
			b.awaitInForce()
			must(t, closed(b.host, "tcp", "127.0.0.1:7000"))

			b.removePolicy()
			b.awaitNetworking(policyTime, control.On)
			b.servesBoth("7000")
			flow = b.dial("tcp", "127.0.0.1:7000")
			must(t, hello(flow))
		}
		// At the start, too.
		b.writePolicy(locked("host_networking.enabled", "false"))
		b.awaitNetworking(policyTime, control.Off)
		b.daemon.terminate()
		b.exits(3, policyPath, "up", "--enable")
		b.exits(3, policyPath, "enable")
		b.startDaemon()
		b.awaitLink()
		b.awaitNetworking(policyTime, control.Off)
		if open := b.hostSockets(); len(open) > 0 {
			t.Errorf("the host has sockets: %q", open)
		}
	})
}

// asBothWithPolicy runs a test with root's daemon and with an ordinary user's.
func asBothWithPolicy(t *testing.T, f func(t *testing.T, b *bed)) {
	t.Parallel()
	for _, user := range []string{"root", "user"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			f(t, startPolicy(t, bedConfig{ordinaryUser: user == "user"}))
		})
	}
}

// G2: host networking that the administrator has locked on, and what is only
// another default.
func TestG2LockedOn(t *testing.T) {
	t.Parallel()
	b := startPolicy(t, bedConfig{})
	links := "links: [" + b.linkEntry() + "]\n"
	b.exits(0, "off", "disable")
	b.writePolicy(locked("host_networking.enabled", "true"))
	b.awaitNetworking(policyTime, control.On)
	b.servesBoth("7000")
	b.exits(3, policyPath, "disable")
	b.write(links + "host_networking: {enabled: false}")
	b.awaitInForce()
	must(t, try(b.host, "tcp", "127.0.0.1:7000"))
	b.daemon.terminate()
	b.startDaemon()
	b.awaitLink()
	b.servesBoth("7000")

	// A default: the user has the last word, as long as there is one.
	b.writePolicy(`{"host_networking.enabled": {"locked": false, "value": true}}`)
	b.awaitNetworking(policyTime, control.Off)
	b.write(links)
	b.awaitNetworking(followTime, control.On)
	b.servesBoth("7000")
	b.exits(0, "off", "disable")
	b.unreachable("tcp", "127.0.0.1:7000")
	b.exits(0, "on", "enable")
	b.servesBoth("7000")
}

// G2, F9: what else the administrator may lock is in force within two seconds,
// cuts what it forbids, and cannot be changed.
func TestG2LockedKeys(t *testing.T) {
	t.Parallel()
	b := startPolicy(t, bedConfig{})
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)
	wide := joinText(hostWire.v4.String(), "7000")
	b.hostEchoes("127.0.0.1:7100")
	b.awaitHostReach(control.On)
	open := func(address string) func() error {
		return func() error { return try(b.host, "tcp", address) }
	}
	shut := func(address string) func() error {
		return func() error { return closed(b.host, "tcp", address) }
	}
	for _, c := range []struct {
		key, value, other string // other is what the user would like
		holds             []func() error
	}{
		{"exposure", `"loopback"`, "mirror", []func() error{shut(wide), open("127.0.0.1:7000")}},
		{"ports.deny", `["7000/tcp"]`, "[]", []func() error{shut("127.0.0.1:7000"), shut("[::1]:7000"), shut(wide),
			func() error { return try(b.host, "udp", "127.0.0.1:7000") }}},
		{"ports.allow", `[7001]`, "all", []func() error{shut("127.0.0.1:7000")}},
		{"ports.rules", `[{"port": 7000, "host_port": 17000}]`, "[]", []func() error{shut("127.0.0.1:7000"), open("127.0.0.1:17000")}},
		{"host_reach.deny", `[7100]`, "[]", []func() error{func() error { return closed(b.guest, "tcp", "127.0.0.1:7100") }}},
		{"host_reach.enabled", `false`, "true", []func() error{func() error { return closed(b.guest, "tcp", "127.0.0.1:7100") }}},
	} {
		b.writePolicy(locked(c.key, c.value))
		for i, holds := range c.holds {
			wait.Eventually(t, policyTime, fmt.Sprintf("%s: %s (%d)", c.key, c.value, i), holds)
		}
		b.exits(3, policyPath, "settings", "set", c.key, c.other)
		b.exits(3, policyPath, "settings", "unset", c.key)
		// Past the command, by hand.
		var text string
		group, name, nested := strings.Cut(c.key, ".")
		if text = fmt.Sprintf("%s: %s", group, c.other); nested {
			text = fmt.Sprintf("%s: {%s: %s}", group, name, c.other)
		}
		b.write(b.settingsText(text))
		b.awaitInForce()
		for i, holds := range c.holds {
			if err := holds(); err != nil {
				t.Errorf("%s: %s (%d), after the user's: %v", c.key, c.value, i, err)
			}
		}
		b.removePolicy()
		b.write(b.settingsText(""))
		wait.Eventually(t, policyTime, "without "+c.key, open(wide))
		wait.Eventually(t, patience, "without "+c.key, func() error { return try(b.guest, "tcp", "127.0.0.1:7100") })
	}
}

// G2: a policy that cannot be used, or that ordinary users could have written,
// closes everything, says why, and opens again when it is mended.
func TestG2BadPolicy(t *testing.T) {
	t.Parallel()
	b := startPolicy(t, bedConfig{})
	good := locked("exposure", `"mirror"`)
	b.writePolicy(good)
	path := b.etc.path(policyPath)
	dir := filepath.Dir(path)
	chmod := func(name string, mode fs.FileMode) func() {
		return func() { must(t, os.Chmod(name, mode)) }
	}
	for _, c := range []struct {
		name        string
		spoil, mend func()
		want        string
	}{
		{"no JSON", func() { b.writePolicy(`{"exposure": `) }, func() { b.writePolicy(good) }, policyPath + ":1: "},
		{"empty", func() { b.writePolicy("") }, func() { b.writePolicy(good) }, policyPath},
		{"unknown key", func() { b.writePolicy("{\n" + `"exposrue": {"locked": true, "value": "mirror"}}`) },
			func() { b.writePolicy(good) }, policyPath + ":2: exposrue: unknown key"},
		{"wrong value", func() { b.writePolicy(locked("exposure", `"wide"`)) }, func() { b.writePolicy(good) }, "exposure: must be"},
		{"no lock", func() { b.writePolicy(`{"exposure": "mirror"}`) }, func() { b.writePolicy(good) }, "exposure"},
		{"a bad link", func() { b.writePolicy(locked("links", `[{"name": "vm", "url": "ftp:x"}]`)) }, func() { b.writePolicy(good) }, "links[0].url"},
		{"file writable by others", chmod(path, 0o666), chmod(path, 0o644), "others may write"},
		{"file writable by a group", func() { must(t, os.Chown(path, 0, 5)); must(t, os.Chmod(path, 0o664)) },
			func() { must(t, os.Chown(path, 0, 0)) }, "group 5 may write"},
		{"directory writable by others", chmod(dir, 0o777), chmod(dir, 0o755), "others may write"},
		{"file of a user", func() { must(t, os.Chown(path, nobody, 0)) }, func() { must(t, os.Chown(path, 0, 0)) }, "owned by uid 65534"},
		{"directory of a user", func() { must(t, os.Chown(dir, nobody, 0)) }, func() { must(t, os.Chown(dir, 0, 0)) }, "owned by uid 65534"},
		{"no file", func() { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o755)) },
			func() { must(t, os.Remove(path)); b.writePolicy(good) }, policyPath},
	} {
		flow := b.dial("tcp", "127.0.0.1:7000")
		must(t, hello(flow))
		c.spoil()
		reason := b.awaitNetworking(policyTime, control.Blocked)
		if !strings.Contains(reason, c.want) || strings.Contains(reason, "\n") {
			t.Errorf("%s: the reason is %q, want %q", c.name, reason, c.want)
		}
		must(t, closed(b.host, "tcp", "127.0.0.1:7000"))
		if err := isOver(flow); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		b.exits(3, c.want, "enable")
		b.exits(3, c.want, "settings", "set", "host_networking.enabled", "true")
		b.exits(0, "blocked", "status")
		c.mend()
		b.awaitNetworking(policyTime, control.On)
		b.servesBoth("7000")
	}
	b.writePolicy("no JSON")
	b.awaitNetworking(policyTime, control.Blocked)
	b.daemon.terminate()
	b.exits(3, policyPath, "up", "--enable")
	b.exits(3, policyPath, "enable")
	b.startDaemon()
	b.awaitLink()
	b.awaitNetworking(policyTime, control.Blocked)
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
	b.removePolicy()
	b.awaitNetworking(policyTime, control.On)
	b.servesBoth("7000")
}

// G2: an ordinary user finds no way around the policy: neither variables, nor
// flags, nor another home or file.
func TestG2NoWayAround(t *testing.T) {
	t.Parallel()
	b := startPolicy(t, bedConfig{ordinaryUser: true})
	b.writePolicy(locked("exposure", `"loopback"`, "ports.deny", "[7001]"))
	lan := newNamespace(t)
	joinNamespaces(t, b.host, hostWire, lan, guestWire)
	b.spawnServer("7001")
	wide := joinText(hostWire.v4.String(), "7000")
	other := shortDir(t)
	must(t, os.Chown(other, nobody, nobody))
	text := b.settingsText("exposure: mirror\nports: {deny: []}")
	file := filepath.Join(other, "settings.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o644))
	must(t, os.Chown(file, nobody, nobody))
	home := b.home
	for _, c := range []struct {
		name  string
		flags []string
		env   []string
		home  string
	}{
		{name: "variables", env: []string{"VMBRIDGE_EXPOSURE=mirror", "VMBRIDGE_PORTS_DENY=[]", "VMBRIDGE_HOST_NETWORKING_ENABLED=true"}},
		{name: "a variable that is none", env: []string{"VMBRIDGE_POLICY=" + file, "HOME=" + other}},
		{name: "flags", flags: []string{"--enable", "--settings", file}},
		{name: "another home", home: other},
	} {
		b.daemon.terminate()
		b.config.environ, b.config.flags = c.env, c.flags
		if b.home = home; c.home != "" {
			b.home = c.home
			b.giveKey("vm")
			must(t, os.Chown(filepath.Join(other, "keys"), nobody, nobody))
			must(t, os.Chown(filepath.Join(other, "keys", "vm"), nobody, nobody))
		}
		b.startDaemon()
		b.awaitLink()
		b.servesBoth("7000")
		for _, address := range []string{wide, "127.0.0.1:7001", joinText(hostWire.v4.String(), "7001")} {
			if err := closed(b.host, "tcp", address); err != nil {
				t.Errorf("%s: %s: %v", c.name, address, err)
			}
		}
		for _, key := range []string{"exposure", "ports.deny"} {
			if v, err := b.value(key); err != nil || !v.Locked || v.Origin != "policy" {
				t.Errorf("%s: %+v, %v", c.name, v, err)
			}
		}
		b.exits(3, policyPath, "settings", "set", "exposure", "mirror")
	}
	// Locked off, with everything that says otherwise at once.
	b.daemon.terminate()
	b.writePolicy(locked("host_networking.enabled", "false"))
	b.config.environ, b.config.flags = []string{"VMBRIDGE_HOST_NETWORKING_ENABLED=true"}, nil
	b.exits(3, policyPath, "up", "--enable", "--settings", file)
	b.startDaemon()
	b.awaitLink()
	b.awaitNetworking(policyTime, control.Off)
	b.exits(3, policyPath, "enable")
	if open := b.hostSockets(); len(open) > 0 {
		t.Errorf("the host has sockets: %q", open)
	}
	// Root of a user namespace of one's own is not the administrator: the file is
	// another's there, and closes everything.
	b.daemon.terminate()
	b.home = other
	cmd := b.command("settings", "get", "host_networking.enabled")
	inside := append(b.etc.enter(true), b.need("unshare"), "--user", "--map-root-user")
	if _, err := runFor(b.host, patience, exec.Command(inside[0], append(inside[1:], "true")...)); err != nil {
		t.Logf("no user namespaces here: %v", err)
		return
	}
	cmd.Args = append(inside, cmd.Args[len(b.etc.enter(true)):]...)
	out, err := runFor(b.host, patience, cmd)
	must(t, err)
	if strings.TrimSpace(out) != "false" {
		t.Errorf("in a user namespace it is %q", out)
	}
}

// G2: settings list tells what is locked, and where it comes from.
func TestG2Listing(t *testing.T) {
	t.Parallel()
	b := startPolicy(t, bedConfig{})
	b.writePolicy(locked("exposure", `"mirror"`))
	wait.Eventually(t, policyTime, "exposure is locked", func() error {
		v, err := b.value("exposure")
		if err == nil && !v.Locked {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
	check := func() {
		t.Helper()
		out, err := b.vmbridge("settings", "list", "--json")
		must(t, err)
		var s control.Settings
		must(t, json.Unmarshal([]byte(out), &s))
		if s.Policy != policyPath || s.Path != b.settingsPath() || len(s.Problems) > 0 {
			t.Errorf("%+v", s)
		}
		for _, v := range s.Values {
			want := map[string]string{"exposure": "policy", "links": "file", "host_networking.enabled": "file"}[v.Key]
			if want == "" {
				want = "default"
			}
			if v.Origin != want || v.Locked != (want == "policy") {
				t.Errorf("%+v", v)
			}
		}
		b.exits(0, "locked", "settings", "list")
	}
	check()
	b.daemon.terminate()
	check()
}
