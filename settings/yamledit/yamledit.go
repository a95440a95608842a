package yamledit

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ErrEntangled says that a key cannot be changed without changing more: it is
// reached by an alias or a merge, or others are made of it.
var ErrEntangled = errors.New("cannot be changed without changing more: set it by hand")

// Set gives src with the value at a path of mapping keys replaced or added,
// and everything else as it was, byte for byte where that can be done. A nil or
// empty src is a new document. Groups on the path are made as needed; one that
// holds something else than keys is an error.
//
// A list that replaces a list keeps the lines, and with them the comments, of
// the items that both begin and both end with.
func Set(src []byte, keys []string, value *yaml.Node) ([]byte, error) {
	if value == nil || value.Kind != yaml.ScalarNode && value.Kind != yaml.SequenceNode && value.Kind != yaml.MappingNode {
		return nil, errors.New("no value to set")
	}
	d, p, err := open(src, keys)
	if err != nil {
		return nil, err
	}
	var meaning any
	if err := value.Decode(&meaning); err != nil {
		return nil, fmt.Errorf("value to set: %w", err)
	}
	if old, ok := lookup(d.meaning, p.path); ok && equal(old, meaning) && len(p.missing) == 0 {
		return src, nil
	}
	want := with(d.meaning, p.path, meaning)
	for _, strict := range []bool{true, false} {
		for text := range setTexts(d, p, value) {
			if d.accepts(text, want, keys, check{style: true, places: strict}) {
				return d.finish(text), nil
			}
		}
	}
	if text, err := setTree(d.text, p, value); err == nil && d.accepts(text, want, keys, check{comments: true}) {
		return d.finish(text), nil
	}
	return nil, ErrEntangled
}

// Remove gives src without the key at a path, and without the groups that are
// empty by that, unless comments are in them. A comment right above the key goes
// with it. Where the key is not there it gives src.
func Remove(src []byte, keys []string) ([]byte, error) {
	d, p, err := open(src, keys)
	if err != nil {
		if errors.Is(err, errNoGroup) {
			return src, nil
		}
		return nil, err
	}
	if len(p.missing) > 0 {
		if _, merged := lookup(d.meaning, p.path); merged {
			return nil, ErrEntangled
		}
		return src, nil
	}
	for _, strict := range []bool{true, false} {
		for text, want := range removeTexts(d, p) {
			if d.accepts(text, want, keys, check{style: true, places: strict}) {
				return d.finish(text), nil
			}
		}
	}
	text, level, err := removeTree(d.text, p)
	if err == nil && d.accepts(text, without(d.meaning, p.path[:level+1]), keys, check{comments: true}) {
		return d.finish(text), nil
	}
	return nil, ErrEntangled
}

// document is a text and what it means.
type document struct {
	bom     []byte
	text    []byte
	eol     string
	root    *yaml.Node // the document; its Kind is 0 for a text with nothing in it
	meaning any
}

var byteOrderMark = []byte("\ufeff")

// open parses a text and walks it along the keys.
func open(src []byte, keys []string) (*document, *place, error) {
	if len(keys) == 0 {
		return nil, nil, errors.New("no key to change")
	}
	for _, key := range keys {
		if !utf8.ValidString(key) {
			return nil, nil, fmt.Errorf("key %q: %w", key, errNotUTF8)
		}
	}
	d := &document{text: src, eol: "\n"}
	if rest, ok := bytes.CutPrefix(src, byteOrderMark); ok {
		d.bom, d.text = byteOrderMark, rest
	}
	if i := bytes.IndexByte(d.text, '\n'); i > 0 && d.text[i-1] == '\r' {
		d.eol = "\r\n"
	}
	var err error
	if d.root, d.meaning, err = parse(d.text); err != nil {
		return nil, nil, err
	}
	p, err := d.walk(keys)
	return d, p, err
}

// finish puts back around a text what was taken off to read it.
func (d *document) finish(text []byte) []byte {
	return append(bytes.Clone(d.bom), text...)
}

// place is how far a path of keys leads into a document.
type place struct {
	steps   []step   // the pairs on the path that are there
	missing []string // the keys that are not
	path    []any    // all keys, as the document means them: one may be a number
}

// step is a pair of a mapping on the path.
type step struct {
	mapping    *yaml.Node
	key, value *yaml.Node
	index      int // of the key in mapping.Content
	limit      int // the line of the next pair after this one, of whatever mapping
}

// group is the mapping that holds, or is to hold, the last key on the way that
// is there or could be made; nil when it is empty.
func (p *place) group(d *document) *yaml.Node {
	n := d.top()
	if len(p.steps) > 0 {
		n = p.steps[len(p.steps)-1].value
	}
	if n == nil || n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return nil
	}
	return n
}

// top is the node of the whole document, nil when there is none.
func (d *document) top() *yaml.Node {
	if d.root.Kind == 0 || len(d.root.Content) == 0 {
		return nil
	}
	return d.root.Content[0]
}

var errNoGroup = errors.New("not a group of keys")

func (d *document) walk(keys []string) (*place, error) {
	p := &place{}
	node, limit := d.top(), d.lines().end
	for i, key := range keys {
		if node != nil && node.Kind == yaml.AliasNode {
			return nil, ErrEntangled
		}
		if node != nil && !isNull(node) && node.Kind != yaml.MappingNode {
			if i == 0 {
				return nil, fmt.Errorf("the document is %w", errNoGroup)
			}
			return nil, fmt.Errorf("line %d: %s is %w", node.Line, keys[i-1], errNoGroup)
		}
		at := -1
		if node != nil {
			at = find(node, key)
		}
		if at < 0 {
			p.missing = keys[i:]
			for _, key := range p.missing {
				p.path = append(p.path, key)
			}
			return p, nil
		}
		s := step{mapping: node, key: node.Content[at], value: node.Content[at+1], index: at}
		if at+2 < len(node.Content) {
			limit = node.Content[at+2].Line - 1
		}
		s.limit = limit
		var meant any
		if err := s.key.Decode(&meant); err != nil {
			return nil, err
		}
		p.steps, p.path = append(p.steps, s), append(p.path, meant)
		node = s.value
	}
	return p, nil
}

// find gives the index of a key in a mapping's content, -1 when it is not there.
func find(mapping *yaml.Node, key string) int {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if k := mapping.Content[i]; k.Kind == yaml.ScalarNode && k.Value == key && k.ShortTag() != "!!merge" {
			return i
		}
	}
	return -1
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func isFlow(n *yaml.Node) bool {
	return n.Style&yaml.FlowStyle != 0 && (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode)
}
