package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile bounds what is read: a settings file is a page, not a disk.
const maxFile = 1 << 20

// readFile gives the file's text, which is empty when it does not exist.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

// unreadable drops the path from a file error, since Error says it already.
func unreadable(path string, err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = fmt.Errorf("cannot %s it: %w", e.Op, e.Err)
	}
	return &Error{Path: path, Err: err}
}

// parseFile gives the values in the text of the settings file at path, all of
// them checked.
func parseFile(path string, data []byte) (layer, error) {
	if len(data) > maxFile {
		return nil, &Error{Path: path, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	root, err := document(data)
	if err != nil {
		// The library counts lines from 0 in some errors and from 1 in others
		// (measured, v3.0.1).
		if e := (*Error)(nil); errors.As(err, &e) && e.Line > 0 {
			e.Err = fmt.Errorf("here or on the next line: %w", e.Err)
		}
		return nil, from(path, err)
	}
	found := make(layer)
	if isNull(root) {
		return found, nil
	}
	err = walk(root, "", false, func(k key, name, value *yaml.Node) error {
		if err := k.read(new(Settings), value); err != nil {
			return err
		}
		found[k.name] = &layered{node: value, origin: OriginFile, place: fmt.Sprintf("%s:%d", path, name.Line)}
		return nil
	})
	if err != nil {
		return nil, from(path, err)
	}
	return found, nil
}

// document parses the one YAML document in data, which may be empty.
func document(data []byte) (*yaml.Node, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
	case err != nil:
		return nil, syntaxError(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document: remove what follows the first ---")
	}
	return doc.Content[0], nil
}

// walk visits the keys in a tree of mappings below prefix. A policy's names may
// be several words of a key at once, with dots, and its groups are not empty.
func walk(mapping *yaml.Node, prefix string, isPolicy bool, visit func(k key, name, value *yaml.Node) error) error {
	if mapping.Kind != yaml.MappingNode {
		return &Error{Line: mapping.Line, Key: strings.TrimSuffix(prefix, "."), Err: fmt.Errorf("must be a mapping of keys to values%s", got(mapping))}
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		name, value := resolve(mapping.Content[i]), resolve(mapping.Content[i+1])
		full := prefix + name.Value
		fail := func(err error) error { return &Error{Line: name.Line, Key: prefix + shown(name.Value), Err: err} }
		if name.Kind != yaml.ScalarNode {
			return fail(errors.New("has a name that is not a text"))
		}
		if seen[full] {
			return fail(errAppearsTwice)
		}
		seen[full] = true
		k, isKey := lookup(full)
		switch {
		case !isPolicy && strings.Contains(name.Value, ".") && (isKey || isGroup(full)):
			group, rest, _ := strings.Cut(name.Value, ".")
			return fail(fmt.Errorf("%w: write %s below %s, without the dot", ErrUnknownKey, rest, prefix+group))
		case isKey:
			if err := visit(k, name, value); err != nil {
				return err
			}
		case !isGroup(full):
			return fail(unknownIn(prefix, name.Value))
		case !isPolicy && isNull(value): // "ports:" with all of it commented out
		default:
			if err := walk(value, full+".", isPolicy, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// unknownIn is unknown for a name below prefix, which may also be right in
// another place.
func unknownIn(prefix, name string) error {
	known := beside(prefix)
	near := nearest(name, known)
	for i := range near {
		near[i] = prefix + near[i]
	}
	if len(near) == 0 {
		near = nearest(name, names())
	}
	if len(near) == 0 {
		return fmt.Errorf("%w: known here: %s", ErrUnknownKey, strings.Join(known, ", "))
	}
	return didYouMean(near)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// syntaxError takes the line out of the YAML library's message, which has it
// only in its text; where that looks different, the text stays whole.
func syntaxError(err error) error {
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", "; ")
	var line int
	if n, scanErr := fmt.Sscanf(text, "line %d: ", &line); n == 1 && scanErr == nil {
		_, text, _ = strings.Cut(text, ": ")
	}
	return &Error{Line: line, Err: errors.New("not YAML: " + text)}
}
