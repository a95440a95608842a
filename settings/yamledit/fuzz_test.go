package yamledit

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// meaningOf reads a text as another program would.
func meaningOf(text []byte) (any, error) {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// put sets the value at a path of string keys in a decoded document.
func put(v any, keys []string, value any) any {
	if len(keys) == 0 {
		return value
	}
	m := generic(v)
	group, ok := m.(map[any]any)
	if !ok {
		group = map[any]any{}
	}
	key := any(keys[0])
	if _, ok := group[key]; !ok {
		for other := range group { // a key that is a number in YAML
			var n yaml.Node
			if n.Encode(other) == nil && n.Value == keys[0] {
				key = other
			}
		}
	}
	group[key] = put(group[key], keys[1:], value)
	return group
}

// prune drops empty groups and nulls along a path.
func prune(v any, keys []string) any {
	group, ok := generic(v).(map[any]any)
	if !ok {
		return v
	}
	if len(keys) > 0 {
		if child, ok := group[keys[0]]; ok {
			if child = prune(child, keys[1:]); child == nil {
				delete(group, keys[0])
			} else {
				group[keys[0]] = child
			}
		}
	}
	if len(group) == 0 {
		return nil
	}
	return group
}

// remarks lists the comments that the parser sees.
func remarks(n *yaml.Node) []string {
	var all []string
	for _, c := range []string{n.HeadComment, n.LineComment, n.FootComment} {
		for line := range strings.SplitSeq(c, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				all = append(all, line)
			}
		}
	}
	for _, child := range n.Content {
		all = append(all, remarks(child)...)
	}
	return all
}

// FuzzSet: whatever parses, a key that is set has the value, all else means what
// it did, no comment is lost with a scalar, and taking a new key out again gives
// what was before. Or it is an error.
func FuzzSet(f *testing.F) {
	for _, text := range []string{
		"", "---\n", "null", "# c\n", "a: 1\n", "a: 1\r\nb:\r\n  c: 2", "\ufeffa: 1\n", "a:\n  b: 1 # c\n  # d\n\n# e\nf: 2\n",
		"a: {b: 1, c: [x, \"]\"]}\n", "a: [1, # c\n 2]\nb: 'x''y'\n", "a: &x 1\nb: *x\n", "x: &x {b: 1}\na:\n  <<: *x\n  c: 1\n",
		"a: |+\n  x\n  # y\n\nb: >-\n  z\n", "? a\n: b\n", "a:\n- b\n-\n  - c\n", "a: !!binary aGk=\n? {b: 1}\n: c\n", "1: x\ntrue: y\n.nan: z\n",
		"a: b\n  c\nd: \"e\n\n  f\"\n", "%YAML 1.1\n---\na: 1\n...\n", "a:\n    b:\n        c: 1\n# end", "--- {a: 1}\n", "--- # c\n", "{}\n", "a: {b: }\n", "a: {b}\n",
		"ports:\n  # ssh\n  - 22 # c\n  - 23\n", "a: 2001-01-01\nb: 0x1\n", "\u0085a: 1\n", "a: 'x\n\n  # y'\nb: 1\n",
	} {
		for _, keys := range []string{"a", "a.b", "new.k", "ports"} {
			f.Add(text, keys, "5 # five", false)
			f.Add(text, keys, "x: [1]", true)
		}
		f.Add(text, "a.b", "- 22\n- p: 1", false)
		f.Add(text, "a", "\"line\\nline\"", true)
	}
	f.Add("", "\x8c", "1", false)
	f.Add("{b}", "a.c", "5 # five", true)
	f.Add("{a}", "a\rb", "5", true)
	f.Add("&0:", "\r", "x", true)
	f.Fuzz(func(t *testing.T, text, path, value string, quoted bool) {
		var n yaml.Node
		if len(text)+len(value) > 4096 || yaml.Unmarshal([]byte(value), &n) != nil || n.Kind == 0 {
			return
		}
		keys := strings.Split(path, ".")
		if quoted {
			n = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}}}
		}
		var want any
		if n.Content[0].Decode(&want) != nil {
			return
		}
		before, err := meaningOf([]byte(text))
		out, setErr := Set([]byte(text), keys, n.Content[0])
		if setErr != nil {
			return
		}
		if err != nil {
			t.Fatalf("does not parse, and no error: %v\n%q", err, out)
		}
		after, err := meaningOf(out)
		if err != nil {
			t.Fatalf("what was set does not parse: %v\n%q\n%q", err, text, out)
		}
		old, _ := meaningOf([]byte(text))
		if wanted := put(old, keys, want); !equal(after, wanted) {
			t.Fatalf("%q\nset %q to %#v\n%q\nmeans %#v\nwant %#v", text, keys, want, out, after, wanted)
		}
		var was, is yaml.Node
		_, _ = yaml.Unmarshal([]byte(text), &was), yaml.Unmarshal(out, &is)
		d, p, err := open([]byte(text), keys)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.missing) > 0 || p.steps[len(p.steps)-1].value.Kind == yaml.ScalarNode {
			left := remarks(&is)
			for _, c := range remarks(&was) {
				i := slices.IndexFunc(left, func(l string) bool { return strings.Contains(l, c) })
				if i < 0 {
					t.Fatalf("%q\nset %q to %#v\n%q\nlost %q, has %q", text, keys, want, out, c, left)
				}
			}
		}
		if _, merged := lookup(d.meaning, p.path); len(p.missing) == 0 || merged {
			return // not new, or what was merged would show again
		}
		gone, err := Remove(out, keys)
		if errors.Is(err, ErrEntangled) && strings.Contains(text, "?") {
			return // explicit keys end nowhere near where they begin: refused, and nothing lost
		}
		if errors.Is(err, ErrEntangled) {
			t.Fatalf("%q\nset %q to %#v\n%q\ncannot be removed", text, keys, want, out)
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := meaningOf(gone)
		if err != nil {
			t.Fatal(err)
		}
		if !equal(prune(again, keys), prune(before, keys)) {
			t.Fatalf("%q\nset and removed %q:\n%q\n%q\nmeans %#v, not %#v", text, keys, out, gone, again, before)
		}
	})
}

func TestSetDoesNotChangeTheValue(t *testing.T) {
	value := node(t, "# head\n- a: 'x' # side\n- b\n")
	want := node(t, "# head\n- a: 'x' # side\n- b\n")
	for _, text := range []string{"l: [1]\n", "g: {l: 1}\n", "l:\n  - c\n", "l: 'x'\n", ""} {
		if _, err := Set([]byte(text), []string{"l"}, value); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(value, want) {
		t.Errorf("the value is now %+v", value)
	}
}
