package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "link.key")
	for _, test := range []struct {
		args   string
		status int
		says   string
	}{
		{"frobnicate", 2, "unknown command"},
		{"serve extra", 2, "extra"},
		{"serve --nope", 2, "--nope"},
		{"serve --listen ftp:", 2, "ftp"},
		{"serve --listen exec:true", 2, "only be dialled"},
		{"serve --listen unix:///" + strings.Repeat("long/", 30) + "s", 2, "at most"},
		{"serve --stdio --listen unix:///x", 2, "exclude"},
		{"serve --detect guess", 2, "guess"},
		{"install --nope", 2, "--nope"},
		{"install extra", 2, "extra"},
		{"uninstall extra", 2, "extra"},
		{"serve --listen unix:///nowhere/s --key " + missing, 1, missing},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(test.args), &stdout, &stderr)
			line := stderr.String()
			if status != test.status || !strings.HasPrefix(line, "vmbridge-guest: ") ||
				strings.Count(line, "\n") != 1 || !strings.Contains(line, test.says) {
				t.Errorf("status %d, %q", status, line)
			}
			// Standard output belongs to the protocol.
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", stdout.String())
			}
		})
	}
}
