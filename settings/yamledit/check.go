package yamledit

import (
	"maps"

	"gopkg.in/yaml.v3"
)

// check is what an edit must have left alone besides the meaning.
type check struct {
	style    bool // how things are quoted and laid out
	places   bool // the nodes that comments belong to
	comments bool // that all comments are there, at whatever node
}

// accepts says if a new text means what is wanted, and if all but the pair at
// the path of keys is as it was.
func (d *document) accepts(text []byte, want any, keys []string, c check) bool {
	root, meaning, err := parse(text)
	if err != nil || !equalTop(meaning, want) {
		return false
	}
	depth := min(depthOf(d.root, keys), depthOf(root, keys))
	before, after := listing{check: c, all: map[string]int{}}, listing{check: c, all: map[string]int{}, deep: true}
	before.add(d.root, keys[:depth+1])
	after.add(root, keys[:depth+1])
	if len(before.lines) != len(after.lines) {
		return false
	}
	for i := range before.lines {
		if before.lines[i] != after.lines[i] {
			return false
		}
	}
	// The pair's own comments may only have moved within it. Those inside its
	// old value are part of that.
	if c.places || c.comments {
		for comment, n := range before.own {
			if after.own[comment] < n && after.pair {
				return false
			}
		}
	}
	return !c.comments || maps.Equal(before.all, after.all)
}

// equalTop compares documents: one without keys is an empty one.
func equalTop(a, b any) bool {
	if m, ok := a.(map[any]any); ok && len(m) == 0 {
		a = nil
	}
	if m, ok := b.(map[any]any); ok && len(m) == 0 {
		b = nil
	}
	return equal(a, b)
}

// depthOf is how many groups on a path of keys are there, with keys in them.
func depthOf(root *yaml.Node, keys []string) int {
	if root.Kind == 0 {
		return 0
	}
	node := root.Content[0]
	for i, key := range keys[:len(keys)-1] {
		if node.Kind != yaml.MappingNode {
			return i
		}
		at := find(node, key)
		if at < 0 {
			return i
		}
		if node = node.Content[at+1]; node.Kind != yaml.MappingNode || len(node.Content) == 0 {
			return i
		}
	}
	return len(keys) - 1
}

// listing is a document as a list of its nodes but for one pair.
type listing struct {
	check
	lines []line
	pair  bool           // the pair is there
	deep  bool           // its comments are all that are in it, not only those of its key and of its value as a whole
	own   map[string]int // its comments
	all   map[string]int // comments of all others
}

type line struct {
	kind             yaml.Kind
	size             int
	tag, value       string
	anchor           string
	style            yaml.Style
	head, side, foot string
}

func (l *listing) add(n *yaml.Node, keys []string) {
	if n.Kind == 0 || n.Kind == yaml.DocumentNode && len(n.Content) == 0 {
		return
	}
	if n.Kind == yaml.DocumentNode {
		// An empty document has no node for its mapping, and may get one.
		l.comment(n)
		if top := n.Content[0]; top.Kind == yaml.MappingNode {
			l.pairs(top, keys)
		} else if !isNull(top) {
			l.add(top, nil)
		}
		return
	}
	entry := line{kind: n.Kind, tag: n.ShortTag(), value: n.Value, anchor: n.Anchor, size: len(n.Content)}
	if l.style {
		entry.style = n.Style
	}
	if l.places {
		entry.head, entry.side, entry.foot = n.HeadComment, n.LineComment, n.FootComment
	}
	l.comment(n)
	if len(keys) > 0 {
		entry.size = 0 // a pair may come or go
	}
	l.lines = append(l.lines, entry)
	l.pairs(n, keys)
}

// pairs adds what is in a node, but for the pair at a path of keys.
func (l *listing) pairs(n *yaml.Node, keys []string) {
	at := -1
	if len(keys) > 0 {
		at = find(n, keys[0])
	}
	for i := 0; i < len(n.Content); i++ {
		switch {
		case at >= 0 && i == at && len(keys) == 1:
			l.pair, l.own = true, map[string]int{}
			l.owned(n.Content[i])
			l.owned(n.Content[i+1])
			i++
		case at >= 0 && i == at+1:
			l.add(n.Content[i], keys[1:])
		default:
			l.add(n.Content[i], nil)
		}
	}
}

func (l *listing) comment(n *yaml.Node) {
	for _, c := range []string{n.HeadComment, n.LineComment, n.FootComment} {
		if c != "" {
			l.all[c]++
		}
	}
}

func (l *listing) owned(n *yaml.Node) {
	for _, c := range []string{n.HeadComment, n.LineComment, n.FootComment} {
		if c != "" {
			l.own[c]++
		}
	}
	if l.deep {
		for _, child := range n.Content {
			l.owned(child)
		}
	}
}
