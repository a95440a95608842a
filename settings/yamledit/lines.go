package yamledit

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// lines are where the lines of a text begin. Lines and columns are counted from
// one here, as the parser does, and columns in characters.
type lines struct {
	text   []byte
	starts []int // one more than there are lines: the last is the end of the text
	end    int   // the last line of the document: what ends it is after it
}

func (d *document) lines() *lines {
	l := &lines{text: d.text}
	for at := 0; at < len(d.text); {
		l.starts = append(l.starts, at)
		n := bytes.IndexByte(d.text[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	l.end = len(l.starts)
	l.starts = append(l.starts, len(d.text))
	for n := 1; n <= l.end; n++ {
		if rest, ok := bytes.CutPrefix(l.line(n), []byte("...")); ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t') {
			l.end = n - 1
		}
	}
	return l
}

// exotic says if a text has line breaks that the parser counts and lines does
// not, so that nothing is where the parser says it is.
func exotic(text []byte) bool {
	for i, c := range text {
		if c == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			return true
		}
	}
	return bytes.ContainsAny(text, "\u0085\u2028\u2029\ufeff")
}

// start is where a line begins; that of one past the last is the end.
func (l *lines) start(n int) int { return l.starts[min(n, len(l.starts))-1] }

// line is a line without its break.
func (l *lines) line(n int) []byte {
	return bytes.TrimRight(l.text[l.start(n):l.start(n+1)], "\r\n")
}

// stop is where the text of the line with an offset ends, before its break.
func (l *lines) stop(at int) int {
	n := l.number(at)
	return l.start(n) + len(l.line(n))
}

// number is the line that an offset is in.
func (l *lines) number(at int) int {
	n, found := slices.BinarySearch(l.starts, at)
	if found && n < len(l.starts)-1 {
		return n + 1
	}
	return max(n, 1)
}

// at is the offset of a node.
func (l *lines) at(n *yaml.Node) (int, bool) {
	if n.Line < 1 || n.Line >= len(l.starts) || n.Column < 1 {
		return 0, false
	}
	at := l.start(n.Line)
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(l.text[at:])
		if at += size; at > l.start(n.Line+1) {
			return 0, false
		}
	}
	return at, true
}

func (l *lines) blank(n int) bool { return len(bytes.TrimSpace(l.line(n))) == 0 }

func (l *lines) comment(n int) bool {
	return bytes.HasPrefix(bytes.TrimSpace(l.line(n)), []byte("#"))
}

// indent is how many spaces a line begins with.
func (l *lines) indent(n int) int {
	line := l.line(n)
	return len(line) - len(bytes.TrimLeft(line, " "))
}

// last is the last line of a node that begins before a line and ends by limit:
// blank lines and comments after it are not its own.
func (l *lines) last(n *yaml.Node, from, limit int) int {
	for limit > from && (l.blank(limit) || l.comment(limit)) {
		limit--
	}
	for len(n.Content) > 0 {
		n = n.Content[len(n.Content)-1]
	}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return max(limit, l.block(n))
	}
	return limit
}

// block is the last line of a block scalar. In one, a comment or a blank line
// may be text.
func (l *lines) block(n *yaml.Node) int {
	last, indent := n.Line, 0
	keep := bytes.ContainsRune(l.line(n.Line), '+')
	for i := n.Line + 1; i <= l.end; i++ {
		switch {
		case l.blank(i):
			if keep {
				last = i
			}
			continue
		case indent == 0:
			if indent = l.indent(i); indent == 0 {
				return last
			}
		case l.indent(i) < indent:
			return last
		}
		last = i
	}
	return last
}

// edit is one change of a text: what is between two offsets becomes another
// text.
type edit struct {
	from, to int
	with     string
}

// apply makes changes that do not overlap.
func apply(text []byte, edits ...edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, e := range edits {
		if e.from < at || e.to < e.from {
			return nil // no parse of nothing means what is wanted
		}
		out = append(append(out, text[at:e.from]...), e.with...)
		at = e.to
	}
	return append(out, text[at:]...)
}

// insert is the edit that puts whole lines after a line; 0 is before the first.
func (l *lines) insert(after int, block []string, eol string) edit {
	at := l.start(after + 1)
	var with string
	if at > 0 && l.text[at-1] != '\n' { // the last line, and unfinished: so it stays
		for _, line := range block {
			with += eol + line
		}
		return edit{from: at, to: at, with: with}
	}
	for _, line := range block {
		with += line + eol
	}
	return edit{from: at, to: at, with: with}
}

// remove is the edit that takes out whole lines.
func (l *lines) remove(from, to int) edit {
	e := edit{from: l.start(from), to: l.start(to + 1)}
	if e.to == len(l.text) && e.from > 0 && e.to > 0 && l.text[e.to-1] != '\n' {
		// The line before is the last one now, as unfinished as this was.
		e.from = l.start(from-1) + len(l.line(from-1))
	}
	return e
}
