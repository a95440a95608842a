package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// keys is the table of all settings: the dotted path of each, and what takes
// its value.
func (s *Settings) keys() map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"host_networking.enabled": boolean(&s.HostNetworking.Enabled),
		"exposure":                oneOf(&s.Exposure, Mirror, Loopback),
		"localhost_twin":          boolean(&s.LocalhostTwin),
		"ports.ignore":            list(&s.Ports.Ignore, portRange),
		"host_reach.enabled":      boolean(&s.HostReach.Enabled),
		"host_reach.allow":        list(&s.HostReach.Allow, portRange),
		"host_reach.deny":         list(&s.HostReach.Deny, portRange),
		"links":                   list(&s.Links, link),
	}
}

// decode walks the tree below root along the table.
func (s *Settings) decode(root *yaml.Node) error {
	keys := s.keys()
	if err := walk(root, "", keys); err != nil {
		return err
	}
	return s.checkLinks(root)
}

func walk(mapping *yaml.Node, prefix string, keys map[string]func(*yaml.Node) error) error {
	seen := make(map[string]bool)
	for i := 0; i < len(mapping.Content); i += 2 {
		name, value := mapping.Content[i], resolve(mapping.Content[i+1])
		key := prefix + name.Value
		if seen[key] {
			return &Error{Line: name.Line, Key: key, Err: errors.New("appears twice")}
		}
		seen[key] = true
		if set, ok := keys[key]; ok {
			if err := set(value); err != nil {
				return at(value, key, err)
			}
			continue
		}
		if !isGroup(key, keys) {
			return &Error{Line: name.Line, Key: key, Err: fmt.Errorf("unknown key%s", suggest(prefix, keys))}
		}
		switch {
		case value.Kind == yaml.MappingNode:
			if err := walk(value, key+".", keys); err != nil {
				return err
			}
		case value.Kind == yaml.ScalarNode && value.Tag == "!!null": // "ports:" with all of it commented out
		default:
			return &Error{Line: value.Line, Key: key, Err: errors.New("must be a mapping of keys to values")}
		}
	}
	return nil
}

// at gives err the place of node, unless it names a narrower one.
func at(node *yaml.Node, key string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		if e.Key == "" {
			e.Key = key
		} else if strings.HasPrefix(e.Key, "[") {
			e.Key = key + e.Key
		}
		return e
	}
	return &Error{Line: node.Line, Key: key, Err: err}
}

func isGroup(key string, keys map[string]func(*yaml.Node) error) bool {
	for k := range keys {
		if strings.HasPrefix(k, key+".") {
			return true
		}
	}
	return false
}

// suggest names the keys that there are beside an unknown one.
func suggest(prefix string, keys map[string]func(*yaml.Node) error) string {
	var names []string
	for k := range keys {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return ": known here: " + strings.Join(slices.Compact(names), ", ")
}

func boolean(target *bool) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			return fmt.Errorf("must be true or false%s", got(n))
		}
		return n.Decode(target)
	}
}

func oneOf[T ~string](target *T, values ...T) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode && slices.Contains(values, T(n.Value)) {
			*target = T(n.Value)
			return nil
		}
		names := make([]string, len(values))
		for i, v := range values {
			names[i] = string(v)
		}
		return fmt.Errorf("must be %s%s", strings.Join(names, " or "), got(n))
	}
}

// list takes a sequence, element by element. A list that is there and empty
// becomes one that is not nil.
func list[T any](target *[]T, element func(*yaml.Node) (T, error)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.SequenceNode {
			return fmt.Errorf("must be a list%s", got(n))
		}
		values := make([]T, 0, len(n.Content))
		for i, c := range n.Content {
			v, err := element(resolve(c))
			if err != nil {
				return at(c, fmt.Sprintf("[%d]", i), err)
			}
			values = append(values, v)
		}
		*target = values
		return nil
	}
}

// text takes a scalar as it is written, whatever YAML thinks its type is.
func text(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", fmt.Errorf("must be a text%s", got(n))
	}
	return n.Value, nil
}

// got describes what was found in place of what a key takes.
func got(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return ", not a mapping"
	case n.Kind == yaml.SequenceNode:
		return ", not a list"
	case n.Tag == "!!null":
		return ", not empty"
	}
	return fmt.Sprintf(", not %q", n.Value)
}
