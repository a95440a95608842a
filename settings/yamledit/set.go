package yamledit

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// setTexts tries the ways to write a value into the text, the one nearest to how
// people would do it first. None is sure: each is checked by who asks.
func setTexts(d *document, p *place, value *yaml.Node) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if exotic(d.text) {
			return
		}
		w := writer{document: d, lines: d.lines(), indent: d.unit(), yield: yield}
		group := p.group(d)
		switch {
		case len(p.missing) == 0:
			w.replace(p.steps, value)
		case group == nil && len(p.steps) > 0:
			w.replace(p.steps, pair(p.missing, value))
		case group == nil:
			w.begin(pair(p.missing, value))
		case isFlow(group) || inFlow(p.steps):
			w.addFlow(group, pair(p.missing, value))
		default:
			w.add(p.steps, group, pair(p.missing, value))
		}
	}
}

func inFlow(steps []step) bool {
	return slices.ContainsFunc(steps, func(s step) bool { return isFlow(s.mapping) })
}

// writer yields texts until one is taken.
type writer struct {
	*document
	*lines
	indent int
	yield  func([]byte) bool
	done   bool
}

func (w *writer) try(edits ...edit) {
	if !w.done {
		w.done = !w.yield(apply(w.document.text, edits...))
	}
}

// replace writes over the value of the last step.
func (w *writer) replace(steps []step, value *yaml.Node) {
	s := steps[len(steps)-1]
	e, ok := w.extent(s)
	if !ok {
		return
	}
	w.merge(s, value)
	if inFlow(steps) {
		w.over(s, e, oneLine(value))
		return
	}
	switch old := s.value; {
	case len(value.Content) > 0 && value.Style == 0 && isFlow(old) && len(old.Content) > 0:
		w.over(s, e, oneLine(value)) // as the user has it
	case value.Kind == yaml.ScalarNode && value.Style == 0 && value.ShortTag() == "!!str" && old.ShortTag() == "!!str" &&
		old.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && !strings.ContainsAny(value.Value, "\r\n"):
		w.over(s, e, styled(value, old.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle)))
	}
	w.over(s, e, value)
}

// over puts a value where another is.
func (w *writer) over(s step, e extent, value *yaml.Node) {
	head, below, err := valueOf(value, s.mapping.Column-1, w.indent)
	if err != nil {
		return
	}
	var edits []edit
	if e.last >= e.first {
		edits = append(edits, w.remove(e.first, e.last))
	}
	if tail, ok := strings.CutPrefix(head, " "); ok && e.to > e.from {
		edits = append(edits, edit{from: e.from, to: e.to, with: tail})
	} else {
		edits = append(edits, edit{from: e.colon, to: e.to, with: head})
	}
	if len(below) > 0 {
		edits = append(edits, w.insert(w.number(e.to), below, w.eol))
	}
	w.try(edits...)
}

// begin writes the first pair of a document.
func (w *writer) begin(value *yaml.Node) {
	block, err := render(value, 0, w.indent)
	if err != nil {
		return
	}
	if top := w.document.top(); top != nil {
		if from, to, ok := w.inline(top); ok && w.start(w.number(from)) == from {
			// "null" or "{}" in a line of its own, or with a comment after it.
			rest := bytes.TrimSpace(w.document.text[to:w.stop(to)])
			with := strings.Join(block, w.eol)
			if len(rest) > 0 {
				with = string(rest) + w.eol + w.eol + with
			}
			w.try(edit{from: from, to: w.stop(to), with: with})
		} else if ok {
			w.try(edit{from: from, to: to}, w.insert(w.number(to), block, w.eol))
			w.try(edit{from: from, to: w.stop(to), with: strings.TrimSuffix(w.eol+strings.Join(block, w.eol), "\n")})
		}
	}
	if end := w.end; end > 0 && w.comment(end) {
		w.try(w.insert(end, append([]string{""}, block...), w.eol))
	}
	if len(w.document.text) == 0 {
		w.try(edit{with: strings.Join(block, w.eol) + w.eol})
	}
	w.try(w.insert(w.end, block, w.eol))
}

// add writes a pair into a group: after its last one, or apart from it where a
// comment follows that, or before the first one.
func (w *writer) add(steps []step, group, value *yaml.Node) {
	key, last := group.Content[0], group.Content[len(group.Content)-1]
	block, err := render(value, key.Column-1, w.indent)
	if err != nil {
		return
	}
	limit := w.end
	if len(steps) > 0 {
		limit = steps[len(steps)-1].limit
	}
	end := w.last(last, group.Content[len(group.Content)-2].Line, limit)
	w.try(w.insert(end, block, w.eol))
	after := end // comments of the group after its last pair
	for n := end + 1; n <= limit; n++ {
		if w.comment(n) && w.lines.indent(n) >= key.Column-1 {
			after = n
		} else if !w.blank(n) {
			break
		}
	}
	if after > end {
		w.try(w.insert(after, append([]string{""}, block...), w.eol))
	}
	if len(steps) > 0 {
		if colon, ok := w.colon(steps[len(steps)-1].key); ok {
			w.try(w.insert(w.number(colon), block, w.eol))
		}
	}
	w.try(w.insert(key.Line-1, block, w.eol))
}

// addFlow writes a pair into a group in braces: last, or first.
func (w *writer) addFlow(group, value *yaml.Node) {
	text, err := encode(oneLine(value), 2)
	if err != nil {
		return
	}
	text = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(text, "\n"), "{"), "}")
	from, to, ok := w.inline(group)
	if !ok {
		return
	}
	src := w.document.text
	end := from + len(bytes.TrimRight(src[from:to-1], " \t\r\n"))
	if src[end-1] == ',' {
		w.try(edit{from: end, to: end, with: " " + text})
	} else {
		w.try(edit{from: end, to: end, with: ", " + text})
	}
	if brace := bytes.IndexByte(src[from:to], '{'); brace >= 0 {
		first := from + brace + 1
		if c := src[first]; c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			text += ", "
		} else {
			text += ","
		}
		w.try(edit{from: first, to: first, with: text})
	}
}
