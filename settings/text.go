package settings

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// The text forms of values: what variables, flags and Store.Set take and what
// Value has. All take YAML, and lists also what is shorter to type.

// parseYAML takes YAML only.
func parseYAML(s string) (*yaml.Node, error) {
	n, err := document([]byte(s))
	if err != nil {
		// There is no line that would help in one line of text.
		if e := (*Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, err
	}
	return resolve(n), nil
}

// commaSeparated takes "a,b" besides "[a, b]".
func commaSeparated(s string) (*yaml.Node, error) {
	if s = strings.TrimSpace(s); s == "" || strings.HasPrefix(s, "[") {
		return parseYAML(s)
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for element := range strings.SplitSeq(s, ",") {
		n.Content = append(n.Content, str(strings.TrimSpace(element)))
	}
	return n, nil
}

// value reads a text form, and gives it as read would take it from a file.
func (k key) value(text string) (*yaml.Node, error) {
	if len(text) > maxFile {
		return nil, &Error{Key: k.name, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	n, err := k.parse(text)
	if err != nil {
		return nil, within(k.name, &yaml.Node{}, err)
	}
	return k.canonical(n)
}

// canonical checks a value and gives it as this package writes it.
func (k key) canonical(n *yaml.Node) (*yaml.Node, error) {
	var s Settings
	if err := k.read(&s, n); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.Line = 0
		}
		return nil, err
	}
	return k.node(&s), nil
}

// flow writes a value on one line.
func flow(n *yaml.Node) string {
	one := *n
	if one.Kind != yaml.ScalarNode {
		one.Style = yaml.FlowStyle
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	// A bytes.Buffer takes everything, and the table's nodes are all well formed.
	if err := errors.Join(enc.Encode(&one), enc.Close()); err != nil {
		panic(fmt.Sprintf("settings: write a value: %v", err))
	}
	return strings.TrimSpace(b.String())
}
