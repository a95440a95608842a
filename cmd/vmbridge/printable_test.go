//go:build unix

package main

import (
	"strings"
	"testing"
	"unicode"

	"github.com/vmbridge/vmbridge/settings"
)

// odd is what would clear the screen, start another line, or turn the text round.
const odd = "\x1b[2J\r\u009b31m\u202e\x07"

// isPrintable checks that a terminal takes what was printed for text, and that
// it has the lines that it should have.
func isPrintable(t *testing.T, args []string, text string, lines int) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q prints %q in %q", args, r, text)
			return
		}
	}
	if n := strings.Count(text, "\n"); n != lines {
		t.Errorf("%q prints %d lines, want %d: %q", args, n, lines, text)
	}
}

// Whatever is in an argument, a variable or a file: what is refused is named in
// one line that a terminal can take.
func TestOddMistakes(t *testing.T) {
	asBoth(t, func(b *box) {
		for _, args := range [][]string{
			{"settings", "get", odd},
			{"settings", "set", odd, "x"},
			{"settings", "unset", odd},
			{"settings", "set", "exposure", odd},
			{"settings", "set", "exposure", "\n" + odd},
			{"settings", "set", "links", "a=exec:" + odd},
			{"settings", "set", "links", odd + "=exec:cat"},
			{"settings", "set", "links", `[{name: a, url: "exec:\e[2J"}]`},
			{"settings", "set", "ports.ignore_processes", "a" + odd},
			{"settings", "set", "ports.rules", `[{process: "\e[2J", action: ignore}]`},
			{"settings", "set", "ports.rules", "[{" + odd + ": x}]"},
			{"settings", odd},
			{odd},
			{"up", "--" + odd},
			{"up", "--link", "a=exec:" + odd},
			{"up", "--link", odd + "=exec:cat"},
			{"up", odd},
			{"guest", "key", odd},
		} {
			status, stdout, stderr := b.run(args...)
			if status != 2 || stdout != "" {
				b.t.Errorf("%q: exit status %d, %q", args, status, stdout)
			}
			isPrintable(b.t, args, stderr, 1)
		}
	})
	b := newBox(t)
	for _, args := range [][]string{{"settings", "list"}, {"enable"}, {"up"}} {
		for _, file := range []string{odd, "exposure: " + odd, odd + ": x", "exposure: \"\\e[2J\"", "links: [{name: \"\\e[2J\", url: x}]", "\"\\e[2J\\u202e\": x"} {
			b.write(b.path(), file)
			status, stdout, stderr := b.run(args...)
			if status != 1 || stdout != "" {
				t.Errorf("%q with a file %q: exit status %d, %q", args, file, status, stdout)
			}
			isPrintable(t, args, stderr, 1)
		}
		b.write(b.path(), "")
		status, stdout, stderr := b.with("VMBRIDGE_EXPOSURE=" + odd).run(args...)
		if status != 1 || stdout != "" {
			t.Errorf("%q with a variable: exit status %d, %q", args, status, stdout)
		}
		isPrintable(t, args, stderr, 1)
	}
	_, stdout, stderr := b.with("VMBRIDGE_"+odd+"=x").run("settings", "list")
	isPrintable(t, []string{"settings", "list"}, stdout, 1+len(settings.Keys()))
	isPrintable(t, []string{"settings", "list"}, stderr, 1)
}

// Odd values that are allowed are shown as they are, each in its line, and come
// back as they were.
func TestOddValues(t *testing.T) {
	asBoth(t, func(b *box) {
		for key, value := range map[string]string{
			"ports.ignore_processes": `["a b", 'c"d', "e: f", "# g", "漢字*", "{h}", "[!i]", "-", "null", "1", "true"]`,
			"ports.rules":            `[{container: "db-*: [x]", host_address: "::1"}, {image: "a, b", action: ignore}, {process: "日本 é", action: ignore}]`,
			"links":                  `[{name: a, url: "exec:sh -c 'echo \"x, y=z\" # é 漢字'"}]`,
		} {
			if status, _, stderr := b.run("settings", "set", key, value); status != 0 {
				b.t.Fatalf("set %s: %d, %s", key, status, stderr)
			}
			written := b.value(key)
			if written.Origin == "flag" {
				continue // the daemon's own link
			}
			_, stdout, _ := b.run("settings", "get", key)
			isPrintable(b.t, []string{"get", key}, stdout, 1)
			if status, again, stderr := b.run("settings", "set", key, strings.TrimSuffix(stdout, "\n")); status != 0 || again != key+" is "+stdout {
				b.t.Errorf("what get prints is not what set takes: %d, %s, %s", status, again, stderr)
			}
		}
		_, stdout, _ := b.run("settings", "list")
		isPrintable(b.t, []string{"settings", "list"}, stdout, 1+len(settings.Keys()))
	})
}
