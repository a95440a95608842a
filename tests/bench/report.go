//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// A report is everything that one run has found.
type report struct {
	machine  Machine
	subjects []*subject
	repeats  int
	duration time.Duration

	mu      sync.Mutex
	samples map[string]map[string][]float64 // by metric and subject
	notes   []string
}

func newReport(m Machine, o options) *report {
	return &report{machine: m, subjects: o.subjects, repeats: o.repeats, duration: o.duration,
		samples: make(map[string]map[string][]float64)}
}

// add files a sample of a measure.
func (r *report) add(measure, subject string, s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, value := range s {
		key = measure + key
		if r.samples[key] == nil {
			r.samples[key] = make(map[string][]float64)
		}
		r.samples[key][subject] = append(r.samples[key][subject], value)
	}
}

// note files why something is missing, once.
func (r *report) note(subject, format string, args ...any) {
	text := subject + ": " + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notes {
		if n == text {
			return
		}
	}
	r.notes = append(r.notes, text)
}

// value returns the median of a metric in the metric's unit.
func (r *report) value(m metric, subject string) (float64, bool) {
	samples := r.samples[m.key][subject]
	if len(samples) == 0 {
		return 0, false
	}
	return median(samples) * m.scale, true
}

// ratio returns vmbridge's median as a multiple of another subject's.
func (r *report) ratio(m metric, against string) (float64, bool) {
	ours, ok := r.value(m, vmbridge)
	if !ok {
		return 0, false
	}
	theirs, ok := r.value(m, against)
	if !ok || theirs == 0 {
		return 0, false
	}
	return ours / theirs, true
}

// writeJSON writes the report with every sample, in the units of samples:
// seconds, bytes, bits per second, percent.
func (r *report) writeJSON(w io.Writer) error {
	type subjectInfo struct {
		Name  string `json:"name"`
		Title string `json:"title"`
	}
	out := struct {
		Machine  Machine                         `json:"machine"`
		Repeats  int                             `json:"repeats"`
		Seconds  float64                         `json:"seconds_per_run"`
		Subjects []subjectInfo                   `json:"subjects"`
		Samples  map[string]map[string][]float64 `json:"samples"`
		Bounds   []Verdict                       `json:"bounds"`
		Notes    []string                        `json:"notes,omitempty"`
	}{r.machine, r.repeats, r.duration.Seconds(), nil, r.samples, r.judge(), r.notes}
	for _, s := range r.subjects {
		out.Subjects = append(out.Subjects, subjectInfo{s.name, s.title})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}
