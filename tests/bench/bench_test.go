//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the workers and relays that a run starts.
func TestMain(m *testing.M) {
	if ran, err := runHidden(os.Args[1:]); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestRun measures everything that needs no vmbridge, briefly: each subject
// yields each figure, and nothing stays behind.
func TestRun(t *testing.T) {
	needRoot(t)
	// On a busy machine a process may not run for the whole of a short span:
	// every figure gets two.
	o := options{repeats: 2, duration: 80 * time.Millisecond, progress: t.Output()}
	for _, s := range subjects("") {
		if column, _ := s.files(); column == vmbridge || s.missing != nil && s.missing() != "" {
			t.Logf("without %s", s.name)
			continue
		}
		o.subjects = append(o.subjects, s)
	}
	o.measures = slices.DeleteFunc(measures(), func(m *measure) bool { return m.name == "idle" }) // 12 s
	dir := t.TempDir()
	r, err := run(t.Context(), o, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.notes) > 0 {
		t.Fatalf("notes: %q", r.notes)
	}
	for _, m := range metrics() {
		for _, s := range o.subjects {
			column, prefixes := s.files()
			prefix := ""
			if strings.HasPrefix(m.key, reachPrefix) {
				prefix = reachPrefix
			}
			if !slices.Contains(prefixes, prefix) {
				continue
			}
			i := slices.IndexFunc(o.measures, func(me *measure) bool { return measureOf(m) == me.name })
			if i < 0 || !o.measures[i].on(s.carries) || strings.Contains(m.key, "memory") || strings.Contains(m.key, "idleconns") {
				continue
			}
			if values := r.samples[m.key][column]; len(values) == 0 || slices.Max(values) <= 0 {
				t.Errorf("%s of %s: %v", m.key, s.name, values)
			}
		}
	}
	noChildren(t)
}

// TestInterrupt ends a run in the middle of a measure.
func TestInterrupt(t *testing.T) {
	needRoot(t)
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	progress := writerFunc(func(p []byte) { cancel(interrupted) }) // the first measure begins
	all := subjects("")
	o := options{repeats: 1, duration: time.Minute, progress: progress,
		subjects: slices.DeleteFunc(all, func(s *subject) bool { return s.name != splice })}
	var err error
	if o.measures, err = chooseMeasures(measures(), "up1"); err != nil {
		t.Fatal(err)
	}
	if _, err := run(ctx, o, t.TempDir()); !errors.Is(err, interrupted) {
		t.Fatalf("run: %v", err)
	}
	noChildren(t)
}

// measureOf gives the name of the measure that yields a metric.
func measureOf(m metric) string {
	return strings.Split(strings.TrimPrefix(m.key, reachPrefix), ".")[0]
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// noChildren fails when this process has children.
func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4: %d, %v: a child is left", pid, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 100, 2, 1}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var took []time.Duration
	for i := 100; i > 0; i-- {
		took = append(took, time.Duration(i))
	}
	if got, want := quantiles(took), (Quantiles{Count: 100, P50: 50, P95: 95, P99: 99}); got != want {
		t.Errorf("quantiles(1..100) = %+v, want %+v", got, want)
	}
	if got, want := quantiles([]time.Duration{7}), (Quantiles{Count: 1, P50: 7, P95: 7, P99: 7}); got != want {
		t.Errorf("quantiles(7) = %+v, want %+v", got, want)
	}
}

func TestChoose(t *testing.T) {
	got, err := chooseSubjects(subjects(""), "vmbridge,direct")
	if err != nil || len(got) != 2 || got[0].name != direct || got[1].name != vmbridge {
		t.Errorf("chooseSubjects = %v, %v", got, err)
	}
	if _, err := chooseMeasures(measures(), "up1,nonsense"); err == nil {
		t.Error("an unknown measure was accepted")
	}
	if got, err := chooseMeasures(measures(), ""); err != nil || len(got) != len(measures()) {
		t.Errorf("chooseMeasures(all) = %d, %v", len(got), err)
	}
}

// TestBoundsNameMetrics holds bounds, metrics and measures together.
func TestBoundsNameMetrics(t *testing.T) {
	keys := make(map[string]metric)
	for _, m := range metrics() {
		if _, double := keys[m.key]; double {
			t.Errorf("two metrics %q", m.key)
		}
		keys[m.key] = m
		if !slices.ContainsFunc(measures(), func(me *measure) bool { return me.name == measureOf(m) }) {
			t.Errorf("no measure yields %q", m.key)
		}
	}
	for _, b := range bounds() {
		m, ok := keys[b.metric]
		if !ok {
			t.Errorf("a bound for %q, which is no metric", b.metric)
		}
		if b.against != "" && !slices.Contains(m.compare, b.against) {
			t.Errorf("a bound compares %q with %s, but the table does not", b.metric, b.against)
		}
	}
}

func testReport() *report {
	o := options{repeats: 3, duration: time.Second}
	for _, s := range subjects("") {
		if s.name == splice || s.name == vmbridge {
			o.subjects = append(o.subjects, s)
		}
	}
	r := newReport(Machine{Date: "2000-01-01", CPU: "abacus", Processors: 1, Kernel: "6.0", Go: "go1.26", Congestion: "reno", Load: "0"}, o)
	for _, v := range []float64{10e9, 90e9, 8e9} {
		r.add("up1", splice, sample{"": v})
	}
	r.add("up1", vmbridge, sample{"": 5e9})
	r.add("listen", vmbridge, sample{".open.p50": 0.003, ".open.p95": 0.021})
	r.note(vmbridge, "one\ntwo")
	r.note(vmbridge, "one\ntwo")
	return r
}

func TestVerdicts(t *testing.T) {
	got := make(map[string]string)
	for _, row := range testReport().verdicts() {
		got[row[0]+", "+row[1]] = row[2] + " " + row[3]
	}
	for name, want := range map[string]string{
		"1 stream, client to server, at least 0.65 of splice": "0.50 missed",
		"1 stream, client to server, at least 1.25 of yamux":  " not measured",
		"listen() to reachable, p50, at most 3 ms":            "3.00 reached",
		"listen() to reachable, p95, at most 20 ms":           "21.00 missed",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

func TestTable(t *testing.T) {
	var text, markdown bytes.Buffer
	r := testReport()
	r.results().writeText(&text)
	const wantText = `
median                        unit  splice  vmbridge  / direct  / splice  / udprelay  / yamux  / pasta
1 stream, client to server  Gbit/s   10.00      5.00                0.50
listen() to reachable, p50      ms              3.00
listen() to reachable, p95      ms             21.00
`
	if got := "\n" + text.String(); got != wantText {
		t.Errorf("text:%s\nwant:%s", got, wantText)
	}
	r.results().writeMarkdown(&markdown)
	const wantMarkdown = `
| median | unit | splice | vmbridge | / direct | / splice | / udprelay | / yamux | / pasta |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| 1 stream, client to server | Gbit/s | 10.00 | 5.00 |  | 0.50 |  |  |  |
| listen() to reachable, p50 | ms |  | 3.00 |  |  |  |  |  |
| listen() to reachable, p95 | ms |  | 21.00 |  |  |  |  |  |
`
	if got := "\n" + markdown.String(); got != wantMarkdown {
		t.Errorf("Markdown:%s\nwant:%s", got, wantMarkdown)
	}
	if got := r.notes; len(got) != 1 || got[0] != "vmbridge: one; two" {
		t.Errorf("notes %q", got)
	}
}
