package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
}

// id names a test; one without a name is its whole package.
type id struct{ pkg, test string }

type summary struct {
	w       io.Writer
	outputs map[id][]string // of what has not ended yet
	builds  map[string][]string
	failing map[string]bool // packages in which a test failed

	passed, failed int
	skips          []string
}

func newSummary(w io.Writer) *summary {
	return &summary{
		w:       w,
		outputs: make(map[id][]string),
		builds:  make(map[string][]string),
		failing: make(map[string]bool),
	}
}

func (s *summary) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		s.w.Write(line)
		return
	}
	key := id{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.outputs[key] = append(s.outputs[key], e.Output)
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
	case "build-fail":
		s.print(s.builds[e.ImportPath])
		delete(s.builds, e.ImportPath)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e.Package, e.Action)
		} else {
			s.endTest(key, e.Action)
		}
	}
}

func (s *summary) endTest(key id, action string) {
	output := s.outputs[key]
	delete(s.outputs, key)
	switch action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.failing[key.pkg] = true
		s.print(output)
	case "skip":
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", key.pkg, key.test, reason(output)))
	}
}

func (s *summary) endPackage(pkg, action string) {
	own := s.outputs[id{pkg, ""}]
	delete(s.outputs, id{pkg, ""})
	if action != "fail" {
		// Of a package that did well only its closing line is of interest.
		for _, line := range own {
			if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
				s.print([]string{line})
			}
		}
		return
	}
	// What did not end may be what brought the package down.
	var unfinished []id
	for key := range s.outputs {
		if key.pkg == pkg {
			unfinished = append(unfinished, key)
		}
	}
	slices.SortFunc(unfinished, func(a, b id) int { return strings.Compare(a.test, b.test) })
	for _, key := range unfinished {
		s.print(s.outputs[key])
		delete(s.outputs, key)
	}
	s.print(own)
	if !s.failing[pkg] { // it did not build, crashed, or failed outside its tests
		s.failed++
	}
}

// reason is what a test said when it skipped, without the file and line.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				line = text
			}
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "(no reason given)"
	}
	return strings.Join(said, " ")
}

// finish prints skips and totals and tells whether all is well.
func (s *summary) finish() bool {
	if len(s.skips) > 0 {
		fmt.Fprintf(s.w, "\n%d tests were skipped:\n", len(s.skips))
		for _, skip := range s.skips {
			fmt.Fprintf(s.w, "  %s\n", skip)
		}
	}
	fmt.Fprintf(s.w, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	return s.failed == 0 && s.passed > 0
}

func (s *summary) print(lines []string) {
	for _, line := range lines {
		io.WriteString(s.w, line)
	}
}
