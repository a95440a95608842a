package yamledit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var (
	errNotUTF8  = errors.New("not UTF-8 text")
	errSeveral  = errors.New("more than one YAML document")
	errNoParser = errors.New("the YAML parser gave up")
)

// parse gives the nodes of a text, and what it means with aliases and merges
// resolved.
func parse(text []byte) (root *yaml.Node, meaning any, err error) {
	if !utf8.Valid(text) {
		return nil, nil, errNotUTF8
	}
	// The parser panics on a few malformed texts rather than to say so.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errNoParser, r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	root = &yaml.Node{}
	switch err := dec.Decode(root); {
	case errors.Is(err, io.EOF):
		return root, nil, nil
	case err != nil:
		return nil, nil, err
	}
	if err := dec.Decode(&yaml.Node{}); err == nil {
		return nil, nil, errSeveral
	} else if !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if err := root.Decode(&meaning); err != nil {
		return nil, nil, err
	}
	return root, generic(meaning), nil
}

// generic makes all mappings of one type. The decoder chooses it by the keys, so
// that one more key could change it.
func generic(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[any]any, len(v))
		for key, value := range v {
			m[key] = generic(value)
		}
		return m
	case map[any]any:
		for key, value := range v {
			v[key] = generic(value)
		}
		return v
	case []any:
		for i := range v {
			v[i] = generic(v[i])
		}
		return v
	}
	return v
}

// equal compares meanings. Not a number is itself here.
func equal(a, b any) bool {
	a, b = generic(a), generic(b)
	switch a := a.(type) {
	case map[any]any:
		b, ok := b.(map[any]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, value := range a {
			if other, ok := b[key]; !ok || !equal(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case float64:
		b, ok := b.(float64)
		return ok && (a == b || math.IsNaN(a) && math.IsNaN(b))
	}
	return reflect.DeepEqual(a, b)
}

func lookup(v any, path []any) (any, bool) {
	for _, key := range path {
		m, _ := v.(map[any]any)
		value, ok := m[key]
		if !ok {
			return nil, false
		}
		v = value
	}
	return v, true
}

// with gives a copy of a meaning with the value at a path set. An empty document
// or group is one without keys.
func with(v any, path []any, value any) any {
	if len(path) == 0 {
		return value
	}
	m, _ := v.(map[any]any)
	changed := clone(m)
	changed[path[0]] = with(m[path[0]], path[1:], value)
	return changed
}

// without gives a copy of a meaning without the key at a path. A document
// without keys means nothing.
func without(v any, path []any) any {
	m, _ := v.(map[any]any)
	changed := clone(m)
	if len(path) == 1 {
		delete(changed, path[0])
	} else {
		changed[path[0]] = without(m[path[0]], path[1:])
	}
	return changed
}

func clone(m map[any]any) map[any]any {
	c := make(map[any]any, len(m)+1)
	for key, value := range m {
		c[key] = value
	}
	return c
}
