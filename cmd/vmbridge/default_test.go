package main

import (
	"strings"
	"testing"

	"github.com/vmbridge/vmbridge/hostside/discover"
)

// Without a link the first way that can be taken is, and the rest says why not.
func TestChoose(t *testing.T) {
	engine := discover.Candidate{URL: dockerURL, What: "Docker's socket", Passed: []string{"DOCKER_HOST: not set"}}
	silent := discover.Candidate{URL: dockerURL, What: "the container engine's virtual machine", Reason: "no container engine answers here"}
	lima := discover.Candidate{URL: "lima://default", What: "Lima's instance default"}
	stopped := discover.Candidate{URL: "colima://work", What: "Colima's profile work", Reason: "it is stopped: colima start work"}
	broken := discover.Candidate{What: "Podman", Reason: "it has no virtual machine"}
	for name, test := range map[string]struct {
		goos  string
		found []discover.Candidate
		url   string
		says  []string
	}{
		"engine": {"darwin", []discover.Candidate{engine, lima, stopped}, dockerURL, []string{
			"passed over: DOCKER_HOST: not set", "taken:       docker:// (Docker's socket)",
			"passed over: lima://default (Lima's instance default): one before it was taken; --link vm=lima://default takes it",
			"passed over: colima://work (Colima's profile work): it is stopped: colima start work",
		}},
		"second": {"darwin", []discover.Candidate{silent, stopped, lima}, "lima://default", []string{
			"passed over: docker:// (the container engine's virtual machine): no container engine answers here",
			"passed over: colima://work", "taken:       lima://default",
		}},
		"nothing": {"windows", []discover.Candidate{silent, broken}, dockerURL, []string{
			"passed over: docker://", "passed over: Podman: it has no virtual machine", "waiting for: docker://",
		}},
		"linux": {"linux", []discover.Candidate{{URL: sandboxURL, What: "here"}, lima}, sandboxURL, []string{
			"taken:       sandbox: (here)", "passed over: lima://default",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			taken := choose(test.found, test.goos)
			if taken.URL != test.url || taken.Name != "default" {
				t.Errorf("took %+v, want %s", taken, test.url)
			}
			var out strings.Builder
			writeChoice(&out, test.found, taken.URL)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")[1:]
			if len(lines) != len(test.says) {
				t.Errorf("%d lines, want %d", len(lines), len(test.says))
			}
			for i, want := range test.says[:min(len(lines), len(test.says))] {
				if !strings.HasPrefix(strings.TrimSpace(lines[i]), want) {
					t.Errorf("line %d is %q, want %q", i, lines[i], want)
				}
			}
		})
	}
}
