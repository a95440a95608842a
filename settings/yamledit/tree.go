package yamledit

import (
	"bytes"
	"slices"

	"gopkg.in/yaml.v3"
)

// setTree is the second choice: it changes the nodes and writes all of them.
func setTree(text []byte, p *place, value *yaml.Node) ([]byte, error) {
	if len(p.missing) > 0 && p.steps == nil && len(bytes.TrimSpace(text)) == 0 {
		out, err := encode(pair(p.missing, value), 2)
		return []byte(out), err
	}
	return editTree(text, func(top *yaml.Node) {
		for _, s := range p.steps {
			top = top.Content[s.index+1]
		}
		if len(p.missing) == 0 {
			fresh := *value
			if fresh.HeadComment+fresh.LineComment+fresh.FootComment == "" {
				fresh.HeadComment, fresh.LineComment, fresh.FootComment = top.HeadComment, top.LineComment, top.FootComment
			}
			*top = fresh
			return
		}
		if top.Kind != yaml.MappingNode {
			*top = yaml.Node{Kind: yaml.MappingNode, HeadComment: top.HeadComment,
				LineComment: top.LineComment, FootComment: top.FootComment}
		}
		if len(top.Content) == 0 {
			top.Style = 0
		}
		top.Content = append(top.Content, pair(p.missing, value).Content...)
	})
}

// removeTree does the same for a pair, and says how many keys the path has to
// what it has taken out, less one.
func removeTree(text []byte, p *place) (out []byte, level int, err error) {
	level = len(p.steps) - 1
	for level > 0 && len(p.steps[level].mapping.Content) == 2 {
		level--
	}
	out, err = editTree(text, func(top *yaml.Node) {
		for _, s := range p.steps[:level] {
			top = top.Content[s.index+1]
		}
		at := p.steps[level].index
		top.Content = slices.Delete(top.Content, at, at+2)
	})
	return out, level, err
}

// editTree changes the nodes below the top one of a text.
func editTree(text []byte, change func(top *yaml.Node)) ([]byte, error) {
	root, _, err := parse(text)
	if err != nil {
		return nil, err
	}
	if root.Kind == 0 {
		return nil, ErrEntangled // only comments, which the parser drops
	}
	change(root.Content[0])
	out, err := encode(root, 2)
	if err != nil {
		return nil, err
	}
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return bytes.ReplaceAll([]byte(out), []byte("\n"), []byte("\r\n")), nil
	}
	return []byte(out), nil
}
