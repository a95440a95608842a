package yamledit

import "gopkg.in/yaml.v3"

// merge writes a list over one in block style, and leaves alone the lines of the
// items that both begin with, and of those that both end with.
func (w *writer) merge(s step, value *yaml.Node) {
	old := s.value
	if old.Kind != yaml.SequenceNode || value.Kind != yaml.SequenceNode || isFlow(old) || isFlow(value) ||
		len(old.Content) == 0 || len(value.Content) == 0 {
		return
	}
	starts := make([]int, len(old.Content)) // the line of each item
	for i, item := range old.Content {
		at := w.start(item.Line) + old.Column - 1
		if at >= len(w.document.text) || w.document.text[at] != '-' || w.lines.indent(item.Line) != old.Column-1 {
			return
		}
		starts[i] = item.Line
	}
	same := 0
	for same < min(len(old.Content), len(value.Content)) && alike(old.Content[same], value.Content[same]) {
		same++
	}
	tail := 0
	for tail < min(len(old.Content), len(value.Content))-same &&
		alike(old.Content[len(old.Content)-1-tail], value.Content[len(value.Content)-1-tail]) {
		tail++
	}
	// The lines of the items between, each with the comments above it.
	last := func(i int) int {
		limit := s.limit
		if i+1 < len(starts) {
			limit = starts[i+1] - 1
		}
		return w.last(old.Content[i], starts[i], limit)
	}
	first, end := starts[0], starts[0]-1
	if same > 0 {
		end = last(same - 1)
		first = end + 1
	}
	var edits []edit
	if gone := len(old.Content) - tail; gone > same {
		end = last(gone - 1)
		if same > 0 && tail == 0 && w.blank(first) {
			for w.blank(first) {
				first++
			}
		}
		edits = append(edits, w.remove(first, end))
	}
	if fresh := value.Content[same : len(value.Content)-tail]; len(fresh) > 0 {
		block, err := render(&yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: fresh}, old.Column-1, w.indent)
		if err != nil {
			return
		}
		edits = append(edits, w.insert(end, block, w.eol))
	}
	w.try(edits...)
}

// alike says if two nodes mean the same.
func alike(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Kind == yaml.AliasNode || a.ShortTag() != b.ShortTag() || a.Value != b.Value ||
		a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !alike(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}
