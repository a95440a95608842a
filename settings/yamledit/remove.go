package yamledit

import (
	"bytes"
	"iter"

	"gopkg.in/yaml.v3"
)

// removeTexts tries the ways to take a pair out of the text, each with what is
// left by it: with the groups that it leaves empty, or, where comments are in
// those, without.
func removeTexts(d *document, p *place) iter.Seq2[[]byte, any] {
	return func(yield func([]byte, any) bool) {
		if exotic(d.text) {
			return
		}
		l := d.lines()
		at := len(p.steps) - 1
		for at > 0 && len(p.steps[at].mapping.Content) == 2 && !l.comments(p.steps[at-1], p.steps[at]) {
			at--
		}
		s, want := p.steps[at], without(d.meaning, p.path[:at+1])
		if at > 0 && len(s.mapping.Content) == 2 {
			want = with(d.meaning, p.path[:at], nil)
		}
		if isFlow(s.mapping) {
			want = without(d.meaning, p.path[:at+1])
			for _, e := range l.cutFlow(s) {
				if !yield(apply(d.text, e), want) {
					return
				}
			}
			return
		}
		floor := 0 // no comment above is of this key from here up
		if at > 0 {
			floor = p.steps[at-1].key.Line
		}
		for _, e := range l.cutLines(s, floor) {
			if !yield(apply(d.text, e), want) {
				return
			}
		}
	}
}

// comments says if comments are in a group besides those of its only pair.
func (l *lines) comments(group, only step) bool {
	if isFlow(group.value) {
		return false
	}
	top := l.head(only, group.key.Line)
	for n := group.key.Line + 1; n < top; n++ {
		if l.comment(n) {
			return true
		}
	}
	for n := l.last(only.value, only.key.Line, group.limit) + 1; n <= group.limit; n++ {
		if l.comment(n) && l.indent(n) > group.mapping.Column-1 {
			return true
		}
	}
	return false
}

// head is the first line of a pair, with the comment right above it. One at the
// top of the file is the file's.
func (l *lines) head(s step, floor int) int {
	n := s.key.Line
	for n-1 > floor && l.comment(n-1) && l.indent(n-1) == l.indent(s.key.Line) {
		n--
	}
	if n == 1 {
		return s.key.Line
	}
	return n
}

// cutLines takes out the lines of a pair, and one of two blank lines that would
// meet.
func (l *lines) cutLines(s step, floor int) []edit {
	at, ok := l.at(s.key)
	if !ok || len(bytes.Trim(l.text[l.start(s.key.Line):at], " \t?")) > 0 {
		return nil
	}
	first, last := l.head(s, floor), l.last(s.value, s.key.Line, s.limit)
	edits := []edit{l.remove(first, last)}
	total := len(l.starts) - 1
	switch above := first == 1 || l.blank(first-1); {
	case above && last < total && l.blank(last+1):
		edits = append([]edit{l.remove(first, last+1)}, edits...)
	case above && first > 1 && last == total:
		edits = append([]edit{l.remove(first-1, last)}, edits...)
	}
	return edits
}

// cutFlow takes a pair out of braces, with the comma after it or before it.
func (l *lines) cutFlow(s step) []edit {
	from, ok := l.at(s.key)
	if !ok {
		return nil
	}
	if s.index+2 < len(s.mapping.Content) {
		to, ok := l.at(s.mapping.Content[s.index+2])
		if !ok {
			return nil
		}
		return []edit{{from: from, to: to}}
	}
	colon, ok := l.colon(s.key)
	if !ok {
		return nil
	}
	to := colon
	if s.value.Kind != yaml.ScalarNode || !isNull(s.value) || s.value.Value != "" {
		if _, to, ok = l.inline(s.value); !ok {
			return nil
		}
	}
	start := len(bytes.TrimRight(l.text[:from], " \t\r\n?"))
	if start > 0 && l.text[start-1] == ',' {
		start--
	}
	return []edit{{from: start, to: to}}
}
