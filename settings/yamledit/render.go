package yamledit

import (
	"bytes"
	"strings"

	"gopkg.in/yaml.v3"
)

// encode writes nodes as the encoder does.
func encode(n *yaml.Node, indent int) (string, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(indent)
	if err := enc.Encode(n); err != nil {
		return "", err
	}
	err := enc.Close()
	return b.String(), err
}

// pair is a key with a value below as many groups as there are more keys.
func pair(keys []string, value *yaml.Node) *yaml.Node {
	if len(keys) > 1 {
		value = pair(keys[1:], value)
	}
	key := &yaml.Node{}
	key.SetString(keys[0])
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{key, value}}
}

// render gives the lines of a node, each indented.
func render(n *yaml.Node, column, indent int) ([]string, error) {
	text, err := encode(n, indent)
	if err != nil {
		return nil, err
	}
	block := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range block {
		if line != "" {
			block[i] = strings.Repeat(" ", column) + line
		}
	}
	return block, nil
}

// valueOf gives what follows the colon of a key in its line, and the lines below.
func valueOf(value *yaml.Node, column, indent int) (head string, below []string, err error) {
	block, err := render(pair([]string{"k"}, value), column, indent)
	if err != nil {
		return "", nil, err
	}
	return strings.TrimPrefix(strings.TrimLeft(block[0], " "), "k:"), block[1:], nil
}

// styled gives a copy of a node in another style.
func styled(n *yaml.Node, style yaml.Style) *yaml.Node {
	c := *n
	c.Style = style
	return &c
}

// oneLine gives a copy of a node that is written in one line.
func oneLine(n *yaml.Node) *yaml.Node {
	c := *n
	c.HeadComment, c.LineComment, c.FootComment = "", "", ""
	switch {
	case n.Kind != yaml.ScalarNode:
		c.Style = yaml.FlowStyle
	case strings.ContainsAny(n.Value, "\r\n"):
		c.Style = yaml.DoubleQuotedStyle
	default:
		c.Style &^= yaml.LiteralStyle | yaml.FoldedStyle
	}
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = oneLine(child)
	}
	return &c
}

// unit is how far a document indents its groups.
func (d *document) unit() int {
	var of func(n *yaml.Node) int
	of = func(n *yaml.Node) int {
		if isFlow(n) {
			return 0
		}
		for i, child := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 && child.Kind == yaml.MappingNode && !isFlow(child) && child.Column > n.Column {
				return child.Column - n.Column
			}
			if u := of(child); u > 0 {
				return u
			}
		}
		return 0
	}
	if u := of(d.root); u >= 2 && u <= 9 { // what the encoder can do
		return u
	}
	return 2
}
