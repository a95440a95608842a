package guestinstall_test

import (
	"testing"

	"github.com/vmbridge/vmbridge/hostside/guestinstall"
)

func TestShellCommand(t *testing.T) {
	for command, want := range map[string]string{
		"ssh root@vm vmbridge-guest serve --stdio":                                  "ssh root@vm sh",
		"ssh vm sudo vmbridge-guest serve --stdio":                                  "ssh vm sudo sh",
		"ssh vm doas /opt/my.dir/vmbridge-guest  serve --stdio --log-level=debug":   "ssh vm doas sh",
		"ssh vm 'sudo -n vmbridge-guest serve --stdio' 2>/dev/null":                 "ssh vm 'sudo -n sh' 2>/dev/null",
		`ssh vm "exec ~/vmbridge-guest serve --stdio"`:                              `ssh vm "exec sh"`,
		"cd /tmp && ssh vm vmbridge-guest serve --stdio; echo gone":                 "cd /tmp && ssh vm sh; echo gone",
		"wsl -d Debian -u root /usr/local/bin/vmbridge-guest serve --stdio --key a": "wsl -d Debian -u root sh",
		"ssh root@vm":                     "ssh root@vm",
		"docker exec -i vm sh":            "docker exec -i vm sh",
		"ssh root@vmbridge-guest":         "ssh root@vmbridge-guest",
		"ssh root@vmbridge-guest serve":   "ssh sh", // nothing tells this one from a path
		"ssh vm vmbridge-guest served up": "ssh vm vmbridge-guest served up",
	} {
		if got := guestinstall.ShellCommand(command); got != want {
			t.Errorf("%s: got %s, want %s", command, got, want)
		}
	}
}
