package settings

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	maxElements = 1024 // of one list: checking it takes the square of its length
	maxText     = 4096 // bytes of one text
)

func boolean() kind[bool] {
	return kind[bool]{
		values: []string{"true", "false"},
		read: func(n *yaml.Node) (bool, error) {
			if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
				switch strings.ToLower(n.Value) {
				case "true":
					return true, nil
				case "false":
					return false, nil
				}
			}
			return false, fmt.Errorf("must be true or false%s", got(n))
		},
		node: func(v bool) *yaml.Node { return scalar(strconv.FormatBool(v)) },
	}
}

func oneOf[T ~string](values ...T) kind[T] {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	return kind[T]{
		values: names,
		read: func(n *yaml.Node) (T, error) {
			if n.Kind == yaml.ScalarNode && slices.Contains(names, n.Value) {
				return T(n.Value), nil
			}
			return "", fmt.Errorf("must be %s%s", strings.Join(names, " or "), got(n))
		},
		node: func(v T) *yaml.Node { return scalar(string(v)) },
	}
}

// list reads a sequence, element by element. check, which may be nil, compares
// the last element of those read so far with the others. A list that is there
// and empty becomes one that is not nil.
func list[T any](element func(*yaml.Node) (T, error), check func([]T) error) func(*yaml.Node) ([]T, error) {
	return func(n *yaml.Node) ([]T, error) {
		if n.Kind != yaml.SequenceNode {
			return nil, fmt.Errorf("must be a list%s", got(n))
		}
		if len(n.Content) > maxElements {
			return nil, fmt.Errorf("has %d elements: %d at most", len(n.Content), maxElements)
		}
		values := make([]T, 0, len(n.Content))
		for i, c := range n.Content {
			v, err := element(resolve(c))
			if err == nil {
				values = append(values, v)
				if check != nil {
					err = check(values)
				}
			}
			if err != nil {
				return nil, within(fmt.Sprintf("[%d]", i), c, err)
			}
		}
		return values, nil
	}
}

// sequence writes a list, short elements on one line.
func sequence[T any](style yaml.Style, element func(T) *yaml.Node) func([]T) *yaml.Node {
	return func(values []T) *yaml.Node {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: style}
		for _, v := range values {
			n.Content = append(n.Content, element(v))
		}
		if len(values) == 0 {
			n.Style = yaml.FlowStyle
		}
		return n
	}
}

// patterns are of path.Match.
func patterns() kind[[]string] {
	return kind[[]string]{
		read: list(pattern, func(all []string) error {
			last := len(all) - 1
			if i := slices.Index(all[:last], all[last]); i >= 0 {
				return fmt.Errorf("%q is there already, as [%d]", all[last], i)
			}
			return nil
		}),
		node:  sequence(yaml.FlowStyle, str),
		parse: commaSeparated,
		list:  true,
	}
}

func pattern(n *yaml.Node) (string, error) {
	s, err := text(n)
	if err != nil {
		return "", err
	}
	if _, err := path.Match(s, ""); err != nil {
		return "", fmt.Errorf("%q is no pattern: a bracket or a backslash is not complete", s)
	}
	return s, nil
}

// text takes a scalar as it is written, whatever YAML thinks its type is.
func text(n *yaml.Node) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null":
		return "", fmt.Errorf("must be a text%s", got(n))
	case n.Value == "":
		return "", errors.New("must not be empty")
	case len(n.Value) > maxText:
		return "", fmt.Errorf("has %d bytes: %d at most", len(n.Value), maxText)
	case !utf8.ValidString(n.Value) || strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", fmt.Errorf("%q has characters that cannot be shown", n.Value)
	}
	return n.Value, nil
}

// members takes a mapping apart, which may hold the known names only.
func members(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("must be a mapping of %s%s", strings.Join(known, ", "), got(n))
	}
	found := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := resolve(n.Content[i])
		switch {
		case name.Kind != yaml.ScalarNode:
			return nil, &Error{Line: name.Line, Err: errors.New("has a name that is not a text")}
		case !slices.Contains(known, name.Value):
			return nil, &Error{Line: name.Line, Key: "." + shown(name.Value), Err: unknown(name.Value, known)}
		case found[name.Value] != nil:
			return nil, &Error{Line: name.Line, Key: "." + name.Value, Err: errAppearsTwice}
		}
		found[name.Value] = resolve(n.Content[i+1])
	}
	return found, nil
}

var errAppearsTwice = errors.New("appears twice")

// got describes what was found in place of what a key takes.
func got(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return ", not a mapping"
	case n.Kind == yaml.SequenceNode:
		return ", not a list"
	case n.ShortTag() == "!!null":
		return ", not empty"
	case len(n.Value) > 100:
		return fmt.Sprintf(", not a text of %d bytes", len(n.Value))
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return fmt.Sprintf(", not the text %q", n.Value)
	}
	return fmt.Sprintf(", not %q", n.Value)
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// scalar is a value whose type is what it looks like.
func scalar(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: value} }

// str is a text, quoted where it looks like something else.
func str(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
}
