//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A table is rows of cells; the first row is the header. All columns but the
// first hold numbers.
type table [][]string

// results lays the report's medians out: one row per metric, one column per
// subject, and vmbridge's ratios to the others.
func (r *report) results() table {
	t := table{{"median", "unit"}}
	compared := []string{direct, splice, datagrams, mux, pasta}
	var columns []string
	for _, s := range r.subjects {
		if column, _ := s.files(); !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
	}
	t[0] = append(t[0], columns...)
	for _, name := range compared {
		t[0] = append(t[0], "/ "+name)
	}
	for _, m := range metrics() {
		if len(r.samples[m.key]) == 0 {
			continue
		}
		row := []string{m.label, m.unit}
		for _, c := range columns {
			row = append(row, format(m.digits)(r.value(m, c)))
		}
		for _, name := range compared {
			cell := ""
			for _, c := range m.compare {
				if c == name {
					cell = format(2)(r.ratio(m, name))
				}
			}
			row = append(row, cell)
		}
		t = append(t, row)
	}
	return t
}

// verdicts lays the bounds out.
func (r *report) verdicts() table {
	t := table{{"bound", "", "measured", ""}}
	for _, v := range r.judge() {
		measured, word := "", "not measured"
		if v.Measured != nil {
			measured, word = strconv.FormatFloat(*v.Measured, 'f', 2, 64), "missed"
			if v.Reached {
				word = "reached"
			}
		}
		t = append(t, []string{v.Metric, v.Bound, measured, word})
	}
	return t
}

// format returns a function that formats a value with so many digits after
// the point, or nothing where there is no value.
func format(digits int) func(v float64, ok bool) string {
	return func(v float64, ok bool) string {
		if !ok {
			return ""
		}
		return strconv.FormatFloat(v, 'f', digits, 64)
	}
}

// writeText writes the report for a terminal.
func (r *report) writeText(w io.Writer) {
	fmt.Fprintf(w, "%v\nmedians of %d interleaved repeats of %v\n\n", r.machine, r.repeats, r.duration)
	r.results().writeText(w)
	fmt.Fprintln(w)
	r.verdicts().writeText(w)
	fmt.Fprintln(w)
	for _, line := range r.legend() {
		fmt.Fprintln(w, line)
	}
}

// writeMarkdown writes the report for the README.
func (r *report) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "%v. Medians of %d interleaved repeats of %v.\n\n", r.machine, r.repeats, r.duration)
	r.results().writeMarkdown(w)
	fmt.Fprintln(w)
	r.verdicts().writeMarkdown(w)
	fmt.Fprintln(w)
	for _, line := range r.legend() {
		fmt.Fprintf(w, "- %s\n", line)
	}
}

// legend explains the columns and lists what is missing.
func (r *report) legend() []string {
	var lines []string
	for _, s := range r.subjects {
		lines = append(lines, s.name+": "+s.title)
	}
	lines = append(lines, "/ NAME: vmbridge's figure divided by NAME's",
		"round trips: all processes of a subject on one processor")
	return append(lines, r.notes...)
}

func (t table) writeText(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range t {
		var line strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + padding)
			} else {
				line.WriteString("  " + padding + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func (t table) writeMarkdown(w io.Writer) {
	for i, row := range t {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|---%s|\n", strings.Repeat("|---:", len(row)-1))
		}
	}
}
