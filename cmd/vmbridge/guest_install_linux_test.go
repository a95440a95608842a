package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmbridge/vmbridge/hostside/control"
	"github.com/vmbridge/vmbridge/tests/wait"
)

// TestGuestInstall puts the agent into a guest of a real systemd, links to it with
// the key that it was given, kills it (G3), upgrades it, and takes it out.
func TestGuestInstall(t *testing.T) {
	g := startSystemd(t)
	home := newHome(t)
	install := func(link string) {
		t.Helper()
		status, stdout, stderr := invoke(t, home, "guest", "install", link)
		if status != 0 {
			t.Fatalf("exit status %d\n%s%s", status, stdout, stderr)
		}
		for _, want := range []string{"vm: Started it: the agent serves", "--link vm=vsock://CID:732"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%q is missing in:\n%s%s", want, stdout, stderr)
			}
		}
		key, err := os.ReadFile(filepath.Join(home, "keys", "vm"))
		if err != nil || strings.Contains(stdout+stderr, strings.TrimSpace(string(key))) {
			t.Errorf("the key is missing or shown: %v", err)
		}
	}
	install("vm=exec:" + g.shell())
	if got := g.run("systemctl is-enabled vmbridge-guest; systemctl is-active vmbridge-guest; ls -A /usr/local/bin | grep vmbridge"); got != "enabled\nactive\nvmbridge-guest" {
		t.Errorf("after the install: %s", got)
	}

	daemon := command(t, home, "up", "--link", "vm=unix://"+g.agentSocket())
	log := new(lockedBuffer)
	daemon.Stderr = log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(t, daemon)
	linkUp := func() control.Link {
		t.Helper()
		var s control.Status
		wait.Until(t, 20*time.Second, "the link is up", func() bool {
			s = control.Status{}
			_, out, _ := invoke(t, home, "status", "--json")
			return json.Unmarshal([]byte(out), &s) == nil && len(s.Links) == 1 && s.Links[0].State == control.LinkUp && s.Links[0].AgentVersion != ""
		})
		return s.Links[0]
	}
	if l := linkUp(); l.Detection.State != "ebpf" && !strings.Contains(l.Detection.Reason, "eBPF") {
		t.Errorf("what the service may do is too little: %+v", l.Detection)
	}
	// What the agent logs is in the daemon's log: here, that another host has come.
	other := command(t, newHome(t), "up", "--key", filepath.Join(home, "keys", "vm"), "--link", "other=unix://"+g.agentSocket())
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(t, other)
	wait.Until(t, 20*time.Second, "the agent's log", func() bool {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, `"agent: a host is connected"`) && strings.Contains(line, `"link":"vm"`) {
				return true
			}
		}
		return false
	})
	before := g.run("systemctl show -P MainPID vmbridge-guest")
	g.run("kill -9 " + before)
	wait.Until(t, 20*time.Second, "the agent has been started again", func() bool {
		now := g.run("systemctl show -P MainPID vmbridge-guest")
		return now != "0" && now != before
	})
	linkUp()

	// By the name of a link that the daemon has: another way in, and so none.
	status, _, stderr := invoke(t, home, "guest", "install", "vm")
	wantError(t, status, stderr, 2, "leads to no shell", "vm='exec:ssh root@vm'")
	// Again, now in the way that an exec: link is written.
	install("vm=exec:" + strings.TrimSuffix(g.shell(), "sh") + "vmbridge-guest serve --stdio")
	linkUp()
	// And in a product's way.
	products := t.TempDir()
	limactl := "#!/bin/sh\ntest \"$*\" = 'shell --workdir / default sudo sh' && exec " + g.shell() + "\n"
	if err := os.WriteFile(filepath.Join(products, "limactl"), []byte(limactl), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", products+":"+os.Getenv("PATH"))
	install("vm=lima://")
	linkUp()

	out := g.run("cp /usr/local/bin/vmbridge-guest /tmp; /tmp/vmbridge-guest uninstall; /tmp/vmbridge-guest uninstall")
	for _, want := range []string{"removed the service", "Removed /usr/local/bin/vmbridge-guest", "Removed /etc/vmbridge/link.key", "Nothing of vmbridge"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if state, _ := g.command("systemctl is-active vmbridge-guest").Output(); strings.TrimSpace(string(state)) != "inactive" {
		t.Errorf("the service is %s", state)
	}
}

// TestGuestInstallWithoutVSock: an agent that cannot listen is no success, says why,
// and serves as soon as it can, with nobody's help.
func TestGuestInstallWithoutVSock(t *testing.T) {
	g := startSystemd(t)
	const dropIn = "/etc/systemd/system/vmbridge-guest.service.d/listen.conf"
	g.run("cp " + dropIn + " /tmp; printf '[Service]\nRestrictAddressFamilies=~AF_VSOCK\n' > " + dropIn)
	home := newHome(t)
	status, stdout, stderr := invoke(t, home, "guest", "install", "vm=exec:"+g.shell())
	if status != 1 || !strings.Contains(stdout, "this kernel has no AF_VSOCK") || !strings.Contains(stderr, "vmbridge-guest install: failed in the guest: exit status 1") {
		t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
	}
	g.run("cp /tmp/listen.conf " + dropIn + "; systemctl daemon-reload")
	wait.Until(t, 20*time.Second, "the agent serves", func() bool {
		state, _ := g.command("systemctl is-active vmbridge-guest").Output()
		return strings.TrimSpace(string(state)) == "active"
	})
}

// TestGuestInstallWrongLink: each says what to write instead.
func TestGuestInstallWrongLink(t *testing.T) {
	home := newHome(t)
	settings := "links: [{name: lab, url: 'vsock://7:732'}, {name: broken, url: 'exec:exit 3'}]\n"
	if err := os.WriteFile(filepath.Join(home, "settings.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, says := range map[string]string{
		"lab":         "leads to no shell",
		"other":       "no link is called",
		"x=sandbox:":  "leads to no shell",
		"x=docker://": "nothing is to be installed",
		"x=ftp://y":   "ftp",
		"x/y=exec:sh": "link name",
		"x=exec:":     "no command",
	} {
		status, _, stderr := invoke(t, home, "guest", "install", link)
		wantError(t, status, stderr, 2, says)
	}
	status, _, stderr := invoke(t, home, "guest", "install", "broken")
	wantError(t, status, stderr, 1, "link broken", "exit status 3")
}

// TestGuestKeyBeforeUp: a VM can be prepared before anything else.
func TestGuestKeyBeforeUp(t *testing.T) {
	home := filepath.Join(newHome(t), "new")
	status, key, stderr := invoke(t, home, "guest", "key", "lab")
	if status != 0 || len(strings.TrimSpace(key)) != 64 || !strings.Contains(stderr, "made the key of link lab: "+filepath.Join(home, "keys", "lab")) {
		t.Errorf("%d, %q, %s", status, key, stderr)
	}
	if status, again, stderr := invoke(t, home, "guest", "key", "lab"); status != 0 || again != key || stderr != "" {
		t.Errorf("again: %d, %q, %s", status, again, stderr)
	}
}
