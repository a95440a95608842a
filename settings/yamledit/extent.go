package yamledit

import (
	"bytes"
	"strings"

	"gopkg.in/yaml.v3"
)

// extent is where the value of a pair is: from and to are on the key's lines,
// as far as it begins there, and first to last are the whole lines below that
// it goes on in.
type extent struct {
	colon       int // after the key's colon
	from, to    int
	first, last int // last < first when there are none
}

// extent finds a value, where that can be told for sure.
func (l *lines) extent(s step) (extent, bool) {
	colon, ok := l.colon(s.key)
	if !ok {
		return extent{}, false
	}
	e := extent{colon: colon, from: colon, to: colon, last: -1}
	v := s.value
	switch {
	case v.Kind == yaml.ScalarNode && v.Value == "" && v.Style == 0 && v.Anchor == "" && v.ShortTag() == "!!null":
		return e, true
	case (v.Kind == yaml.MappingNode || v.Kind == yaml.SequenceNode) && !isFlow(v):
		if v.Line <= s.key.Line { // an anchor, a tag, or one that begins in the key's line
			return extent{}, false
		}
		e.first, e.last = l.number(colon)+1, l.last(v, v.Line, s.limit)
		return e, true
	}
	if e.from, e.to, ok = l.inline(v); !ok || bytes.ContainsAny(l.text[colon:max(colon, e.from)], "\r\n") {
		return extent{}, false
	}
	if v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		e.first, e.last = v.Line+1, l.block(v)
	}
	return e, true
}

// colon is the offset after the colon of a key.
func (l *lines) colon(key *yaml.Node) (int, bool) {
	_, to, ok := l.inline(key)
	if !ok {
		return 0, false
	}
	for to < len(l.text) && (l.text[to] == ' ' || l.text[to] == '\t') {
		to++
	}
	if to >= len(l.text) || l.text[to] != ':' {
		return 0, false
	}
	return to + 1, true
}

// inline is where a scalar, an alias or a flow collection is; of a block scalar
// its header.
func (l *lines) inline(n *yaml.Node) (from, to int, ok bool) {
	if from, ok = l.at(n); !ok {
		return 0, 0, false
	}
	at := from
	for at < len(l.text) && (l.text[at] == '&' || l.text[at] == '!') {
		at = l.skip(at)
		for at < len(l.text) && l.text[at] == ' ' {
			at++
		}
	}
	if at >= len(l.text) {
		return 0, 0, false
	}
	switch c := l.text[at]; {
	case c == '*', n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return from, l.skip(at), true
	case c == '"' && n.Style&yaml.DoubleQuotedStyle != 0, c == '\'' && n.Style&yaml.SingleQuotedStyle != 0:
		to, ok = l.quoted(at)
		return from, to, ok
	case isFlow(n) && (c == '[' || c == '{'):
		to, ok = l.flow(at)
		return from, to, ok
	case n.Kind == yaml.ScalarNode && n.Value != "" && bytes.HasPrefix(l.text[at:], []byte(n.Value)):
		return from, at + len(n.Value), true
	}
	return 0, 0, false // a plain scalar of several lines
}

// skip is the end of a word.
func (l *lines) skip(at int) int {
	for at < len(l.text) && !strings.ContainsRune(" \t\r\n,]}", rune(l.text[at])) {
		at++
	}
	return at
}

// quoted is the end of a quoted scalar.
func (l *lines) quoted(at int) (int, bool) {
	quote := l.text[at]
	for at++; at < len(l.text); at++ {
		switch c := l.text[at]; {
		case c == '\\' && quote == '"':
			at++
		case c == quote && quote == '\'' && at+1 < len(l.text) && l.text[at+1] == quote:
			at++
		case c == quote:
			return at + 1, true
		}
	}
	return 0, false
}

// flow is the end of a flow collection.
func (l *lines) flow(at int) (int, bool) {
	depth, word := 0, false // word: in a plain scalar, where a quote is a letter
	for at < len(l.text) {
		switch c := l.text[at]; c {
		case '[', '{':
			depth, word = depth+1, false
		case ']', '}':
			if depth, word = depth-1, false; depth == 0 {
				return at + 1, true
			}
		case ',':
			word = false
		case ':':
			word = word && at+1 < len(l.text) && !strings.ContainsRune(" \t\r\n", rune(l.text[at+1]))
		case ' ', '\t', '\r', '\n': // a plain scalar may go on
		case '"', '\'':
			if !word {
				end, ok := l.quoted(at)
				if !ok {
					return 0, false
				}
				at = end
				continue
			}
		case '#':
			if strings.ContainsRune(" \t\r\n", rune(l.text[at-1])) {
				at = l.stop(at)
				continue
			}
			word = true
		default:
			word = true
		}
		at++
	}
	return 0, false
}
