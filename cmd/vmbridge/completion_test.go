//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/settings"
)

// The words that complete a line, its last word the one to complete.
var completions = []struct {
	line string
	want []string
}{
	{"settings set expo", []string{"exposure"}},
	{"settings set exposure ", []string{"mirror", "loopback"}},
	{"settings set exposure l", []string{"loopback"}},
	{"settings set host_networking.enabled ", []string{"true", "false"}},
	{"settings set isolation.enhanced_container_isolation t", []string{"true"}},
	{"settings get host_reach.", []string{"host_reach.allow", "host_reach.deny", "host_reach.enabled"}},
	{"settings unset limits.u", []string{"limits.udp_idle"}},
	{"settings get exposure ", nil},
	{"settings set exposure loopback ", nil},
	{"settings ", []string{"get", "list", "path", "set", "unset"}},
	{"settings l", []string{"list"}},
	{"enab", []string{"enable"}},
}

// What every shell's completion asks: keys, with their help, and values.
func TestCompletion(t *testing.T) {
	b := newBox(t)
	for _, c := range completions {
		args := strings.Split(c.line, " ")
		status, stdout, _ := b.run(append([]string{"__complete"}, args...)...)
		if status != 0 {
			t.Errorf("%q: exit status %d", c.line, status)
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
			if word, _, _ := strings.Cut(line, "\t"); strings.HasPrefix(word, args[len(args)-1]) && !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		sameWords(t, c.line, got, c.want)
	}
	_, stdout, _ := b.run("__complete", "settings", "set", "")
	for _, k := range settings.Keys() {
		if !strings.Contains(stdout, k.Key+"\t"+k.Help+"\n") {
			t.Errorf("%s is not offered with its help:\n%s", k.Key, stdout)
		}
	}
}

func sameWords(t *testing.T, line string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%q is completed with %q, want %q", line, got, want)
	}
}

// A real bash, with the completion of a real distribution.
func TestCompletionInBash(t *testing.T) {
	const library = "/usr/share/bash-completion/bash_completion"
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	if _, err := os.Stat(library); err != nil {
		t.Skip("needs bash-completion")
	}
	b := newBox(t)
	vmbridge := b.command().Path
	// What bash does at the TAB key.
	const script = `
		source "$1"
		source <(vmbridge completion bash)
		COMP_LINE="vmbridge $2" COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
		read -ra COMP_WORDS <<<"$COMP_LINE"
		[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		spec=$(complete -p vmbridge) || exit
		[[ $spec =~ -F\ ([^ ]+) ]] || exit
		compopt() { :; } # which is only for bash's own calls
		"${BASH_REMATCH[1]}" vmbridge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
		printf '%s\n' "${COMPREPLY[@]}"`
	for _, c := range completions {
		cmd := exec.Command(bash, "--norc", "-c", script, "bash", library, c.line)
		cmd.Env = append(b.command().Env, "PATH="+filepath.Dir(vmbridge)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", c.line, err, out)
		}
		var got []string
		for _, line := range strings.Split(string(out), "\n") {
			// Of several, the help is shown beside them.
			if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word != "" {
				got = append(got, word)
			}
		}
		sameWords(t, c.line, got, c.want)
	}
}
