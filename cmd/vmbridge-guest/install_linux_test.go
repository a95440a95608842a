package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/tests/isolate"
	"github.com/vmbridge/vmbridge/vmbridge/linkkey"
)

// TestInstallNeedsRoot: whoever cannot install is told so before anything is read.
func TestInstallNeedsRoot(t *testing.T) {
	if !isolate.InNetnsAsUser(t, nil) {
		return
	}
	for _, args := range []string{"install", "install --key-stdin", "uninstall"} {
		var stdout, stderr strings.Builder
		status := run(strings.Fields(args), &stdout, &stderr)
		want := "vmbridge-guest: " + strings.Fields(args)[0] + ": root is needed: run it with sudo or doas\n"
		if status != 1 || stderr.String() != want || stdout.Len() > 0 {
			t.Errorf("%s: status %d, %q, %q", args, status, stdout.String(), stderr.String())
		}
	}
}

func TestReadKey(t *testing.T) {
	key := linkkey.New()
	for text, ok := range map[string]bool{
		key.String():                true,
		key.String() + "\r\n":       true,
		"":                          false,
		"ssh: no such host\n":       false,
		strings.Repeat("a\n", 9000): false,
	} {
		got, err := readKey(strings.NewReader(text))
		if ok && (err != nil || *got != key) {
			t.Errorf("%.20q: %v, %v", text, got, err)
		}
		if !ok && (!errors.Is(err, linkkey.ErrInvalid) || !strings.Contains(err.Error(), "standard input") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
