package yamledit

import (
	"errors"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// node parses a value of a test.
func node(t testing.TB, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return n.Content[0]
}

// G1: a change of one key leaves the rest of a user's file byte for byte.
func TestSetChangesOneKeyAndNothingElse(t *testing.T) {
	for _, c := range []struct{ name, before, keys, value, after string }{
		{"no file", "", "host_networking.enabled", "true", "host_networking:\n  enabled: true\n"},
		{"scalar", "a: 1\nb: 2\n", "a", "3", "a: 3\nb: 2\n"},
		{"scalar in a group, all comments",
			"# top\n\n# group\ng: # here\n  # about a\n  a: false   # for now\n\n  b: 2\n# end\n", "g.a", "true",
			"# top\n\n# group\ng: # here\n  # about a\n  a: true   # for now\n\n  b: 2\n# end\n"},
		{"no newline at the end", "a: 1\nb: 2", "b", "3", "a: 1\nb: 3"},
		{"added without a newline at the end", "a: 1", "b", "3", "a: 1\nb: 3"},
		{"CRLF", "a: 1\r\nb:\r\n  c: 2\r\n", "b.d", "[1]", "a: 1\r\nb:\r\n  c: 2\r\n  d: [1]\r\n"},
		{"CRLF at the end of a scalar", "a: x\r\nb: 2\r\n", "a", "y", "a: y\r\nb: 2\r\n"},
		{"byte order mark", "\ufeffa: 1\n", "a", "2", "\ufeffa: 2\n"},
		{"spaces around", "a :   1\n", "a", "2", "a :   2\n"},
		{"a tab before the value", "a:\t1\n", "a", "2", "a:\t2\n"},
		{"double quotes stay", "a: \"x\" # c\n", "a", "y", "a: \"y\" # c\n"},
		{"single quotes stay", "a: 'x'\n", "a", "it's", "a: 'it''s'\n"},
		{"a quoted key", "\"a b\": 1\n", "a b", "2", "\"a b\": 2\n"},
		{"not null", "a:   # nothing yet\nb: 1\n", "a", "2", "a: 2   # nothing yet\nb: 1\n"},
		{"tilde", "a: ~ # c\n", "a", "2", "a: 2 # c\n"},
		{"new top group", "a: 1\n\n# end\n", "g.x.y", "1", "a: 1\ng:\n  x:\n    y: 1\n\n# end\n"},
		{"last in a group", "g:\n  a: 1\nh: 2\n", "g.b", "2", "g:\n  a: 1\n  b: 2\nh: 2\n"},
		{"the next one's comment stays the next one's", "g:\n  a: 1\n\n# about h\nh: 2\n", "g.b", "2",
			"g:\n  a: 1\n  b: 2\n\n# about h\nh: 2\n"},
		{"four spaces", "g:\n    a: 1\n", "g.l", "- 1", "g:\n    a: 1\n    l:\n        - 1\n"},
		{"four spaces, a new group", "g:\n    a: 1\n", "h.b", "2", "g:\n    a: 1\nh:\n    b: 2\n"},
		{"empty group", "ports:\nb: 1\n", "ports.ignore", "- 22", "ports:\n  ignore:\n    - 22\nb: 1\n"},
		{"group of comments", "ports: # mine\n  # ignore: [22]\nb: 1\n", "ports.ignore", "- 23",
			"ports: # mine\n  ignore:\n    - 23\n  # ignore: [22]\nb: 1\n"},
		{"empty braces", "ports: {} # none\nb: 1\n", "ports.ignore", "- 22", "ports: # none\n  ignore:\n    - 22\nb: 1\n"},
		{"braces", "g: {a: 1, b: [2, 3]} # c\n", "g.b", "[4]", "g: {a: 1, b: [4]} # c\n"},
		{"braces with one more", "g: {a: 1}\n", "g.b", "- 2", "g: {a: 1, b: [2]}\n"},
		{"braces of several lines", "g: {\n  a: 1,\n  # c\n  b: \"}\",\n}\n", "g.c", "3", "g: {\n  a: 1,\n  # c\n  b: \"}\", c: 3\n}\n"},
		{"braces with quotes", "g: {it's: 'a }', b: it 's, \"c\":'# }'} # c\n", "g.d", "1", "g: {it's: 'a }', b: it 's, \"c\":'# }', d: 1} # c\n"},
		{"flow list", "a: [1, \"]\", '2'] # c\nb: 1\n", "a", "- 3", "a: [3] # c\nb: 1\n"},
		{"flow list of several lines", "a: [\n  1, # one\n  2,\n]\nb: 1\n", "a", "5", "a: 5\nb: 1\n"},
		{"list grows", "l:\n  # ssh\n  - 22 # c\n\n  - 23\n# end\n", "l", "- 22\n- 23\n- 24", "l:\n  # ssh\n  - 22 # c\n\n  - 23\n  - 24\n# end\n"},
		{"list shrinks", "l:\n  - 1 # one\n  - 2 # two\n  # about three\n  - 3\nb: 1\n", "l", "- 1\n- 3", "l:\n  - 1 # one\n  # about three\n  - 3\nb: 1\n"},
		{"list changes at the front", "l:\n- 1\n- 2 # two\n", "l", "- 5\n- 2", "l:\n- 5\n- 2 # two\n"},
		{"list of groups", "rules:\n  - port: 1 # a\n    action: ignore\n  - port: 2\n", "rules", "- {port: 1, action: ignore}\n- {port: 3}",
			"rules:\n  - port: 1 # a\n    action: ignore\n  - {port: 3}\n"},
		{"list becomes empty", "l: # c\n  - 1\n  - 2\nb: 1\n", "l", "[]", "l: [] # c\nb: 1\n"},
		{"empty list grows", "l: [] # c\nb: 1\n", "l", "- 1", "l: # c\n  - 1\nb: 1\n"},
		{"scalar becomes a list", "l: 1 # c\nb: 1\n", "l", "- 1\n- 2", "l: # c\n  - 1\n  - 2\nb: 1\n"},
		{"list becomes a scalar", "l: # c\n  - 1\nb: 1\n", "l", "5", "l: 5 # c\nb: 1\n"},
		{"block scalar", "s: |\n  one\n  # text\n\nb: 1\n", "s", "two", "s: two\n\nb: 1\n"},
		{"after a block scalar", "g:\n  s: |\n    one\n    # text\nb: 1\n", "g.t", "1", "g:\n  s: |\n    one\n    # text\n  t: 1\nb: 1\n"},
		{"to a block scalar", "s: one # c\nb: 1\n", "s", "|\n  two\n  three", "s: |- # c\n  two\n  three\nb: 1\n"},
		{"only ---", "---\n", "a", "1", "---\na: 1\n"},
		{"--- first", "---\na: 1\n", "a", "2", "---\na: 2\n"},
		{"--- with a comment", "--- # c\n", "a", "1", "--- # c\na: 1\n"},
		{"... last", "a: 1\n...\n", "b", "2", "a: 1\nb: 2\n...\n"},
		{"null", "null\n", "a", "1", "a: 1\n"},
		{"--- null", "--- null\n", "a", "1", "--- \na: 1\n"},
		{"empty braces for all", "{}\n", "a.b", "1", "a:\n  b: 1\n"},
		{"only comments", "# one\n# two\n", "a", "1", "# one\n# two\n\na: 1\n"},
		{"only comments, no newline", "# one", "a", "1", "# one\n\na: 1"},
		{"a comment at the end", "a: 1\n# ports:\n#   ignore: [22]\n", "b", "1", "a: 1\n# ports:\n#   ignore: [22]\n\nb: 1\n"},
		{"an alias ends", "x: &x 1\na: *x # c\n", "a", "2", "x: &x 1\na: 2 # c\n"},
		{"an anchor nobody uses", "a: &x 1\nb: 2\n", "b", "3", "a: &x 1\nb: 3\n"},
		{"over a merged key", "base: &b {p: 1}\ng:\n  <<: *b\n  q: 2\n", "g.p", "5", "base: &b {p: 1}\ng:\n  <<: *b\n  q: 2\n  p: 5\n"},
		{"a tag", "a: !!str 5 # c\nb: 1\n", "a", "6", "a: 6 # c\nb: 1\n"},
		{"wide characters", "ключ: знач # c\nb: 1\n", "ключ", "x", "ключ: x # c\nb: 1\n"},
		{"the same", "a:   0x10\n", "a", "16", "a:   0x10\n"},
		{"group becomes another", "g: # c\n  a: 1\n  b: 2\nh: 1\n", "g", "{c: 3}", "g: {c: 3} # c\nh: 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Set([]byte(c.before), strings.Split(c.keys, "."), node(t, c.value))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.after {
				t.Errorf("before:\n%s\ngot:\n%s\n%q\nwant:\n%s", c.before, got, got, c.after)
			}
		})
	}
}

// What people write in other ways is written anew, with all that it means and
// all comments.
func TestSetWritesAnewWhatItCannotSplice(t *testing.T) {
	for _, c := range []struct{ name, before, keys, value, after string }{
		{"explicit key", "? a\n: 1 # c\nb: 2\n", "a", "2", "a: 2 # c\nb: 2\n"},
		{"plain scalar of two lines", "a: one\n  two\nb: 2\n", "a", "3", "a: 3\nb: 2\n"},
		{"anchored group", "a: &x\n  - 1\nb: 2\n", "a", "3", "a: 3\nb: 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Set([]byte(c.before), strings.Split(c.keys, "."), node(t, c.value))
			if err != nil || string(got) != c.after {
				t.Errorf("got %v\n%s\nwant:\n%s", err, got, c.after)
			}
		})
	}
}

func TestSetRefusesWhatWouldChangeMore(t *testing.T) {
	for name, c := range map[string]struct{ before, keys string }{
		"anchor that others use":     {"a: &x 1\nb: *x\n", "a"},
		"in an anchored group":       {"a: &x {p: 1}\nb: *x\n", "a.p"},
		"through an alias":           {"a: &x {p: 1}\nb: *x\n", "b.p"},
		"through a merge":            {"x: &x {g: {p: 1, q: 2}}\n<<: *x\n", "g.p"},
		"anchored in what goes away": {"a:\n  b: &x 1\nc: *x\n", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Set([]byte(c.before), strings.Split(c.keys, "."), node(t, "5")); !errors.Is(err, ErrEntangled) {
				t.Errorf("got %v, want ErrEntangled\n%s", err, got)
			}
		})
	}
}

func TestSetRefusesWhatItCannotRead(t *testing.T) {
	for name, before := range map[string]string{
		"not YAML":              "a: [\n",
		"two documents":         "a: 1\n---\na: 2\n",
		"a list":                "- 1\n",
		"a scalar":              "text\n",
		"a key twice":           "a: 1\na: 2\n",
		"a tab as indent":       "a:\n\tb: 1\n",
		"not UTF-8":             "a: \xff\n",
		"UTF-16":                "\xff\xfea\x00:\x00 \x001\x00",
		"a scalar, not a group": "a: 1\n",
		"a list, not a group":   "a:\n  - 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Set([]byte(before), []string{"a", "b"}, node(t, "5"))
			if err == nil || errors.Is(err, ErrEntangled) {
				t.Errorf("got %v and\n%s", err, got)
			}
		})
	}
	if _, err := Set(nil, nil, node(t, "1")); err == nil {
		t.Error("no keys: no error")
	}
	if _, err := Set(nil, []string{"a"}, nil); err == nil {
		t.Error("no value: no error")
	}
}

func TestRemoveTakesOutOneKey(t *testing.T) {
	for _, c := range []struct{ name, before, keys, after string }{
		{"only one", "a: 1\n", "a", ""},
		{"first", "a: 1\nb: 2\n", "a", "b: 2\n"},
		{"last", "a: 1\nb: 2\n", "b", "a: 1\n"},
		{"last without newline", "a: 1\nb: 2", "b", "a: 1"},
		{"not there", "a: 1\n", "b", "a: 1\n"},
		{"group not there", "a: 1\n", "b.c", "a: 1\n"},
		{"below a scalar", "a: 1\n", "a.c", "a: 1\n"},
		{"empty text", "", "a", ""},
		{"its comments go, others stay", "# top\n\n# about a\na: 1 # c\n# about b\nb: 2\n", "a", "# top\n\n# about b\nb: 2\n"},
		{"the comment of the file stays", "# My settings.\na: 1\nb: 2\n", "a", "# My settings.\nb: 2\n"},
		{"group empty by that", "g:\n  a: 1\nh: 2\n", "g.a", "h: 2\n"},
		{"groups empty by that", "g:\n  i:\n    a: 1\nh: 2\n", "g.i.a", "h: 2\n"},
		{"group with a comment stays", "g:\n  a: 1\n  # b: 2\nh: 2\n", "g.a", "g:\n  # b: 2\nh: 2\n"},
		{"one blank line of two", "a: 1\n\nb: 2\n\nc: 3\n", "b", "a: 1\n\nc: 3\n"},
		{"list", "l:\n  # x\n  - 1\n  - 2\n\n# about b\nb: 1\n", "l", "# about b\nb: 1\n"},
		{"block scalar", "s: |\n  one\n  # text\nb: 1\n", "s", "b: 1\n"},
		{"braces, first", "g: {a: 1, b: 2} # c\n", "g.a", "g: {b: 2} # c\n"},
		{"braces, last", "g: {a: 1, b: 2} # c\n", "g.b", "g: {a: 1} # c\n"},
		{"braces, only", "g: {a: 1}\nh: 1\n", "g.a", "h: 1\n"},
		{"CRLF", "a: 1\r\nb: 2\r\n", "a", "b: 2\r\n"},
		{"alias", "x: &x 1\na: *x\n", "a", "x: &x 1\n"},
		{"explicit key", "? a\n: 1\nb: 2 # c\n", "a", "b: 2 # c\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Remove([]byte(c.before), strings.Split(c.keys, "."))
			if err != nil || string(got) != c.after {
				t.Errorf("before:\n%s\ngot %v:\n%s\n%q\nwant:\n%s", c.before, err, got, got, c.after)
			}
		})
	}
	for name, c := range map[string]struct{ before, keys string }{
		"anchor that others use": {"a: &x 1\nb: *x\n", "a"},
		"merged":                 {"x: &x {p: 1}\ng:\n  <<: *x\n", "g.p"},
		"merged below":           {"x: &x {p: 1}\ng:\n  <<: *x\n  p: 2\n", "g.p"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Remove([]byte(c.before), strings.Split(c.keys, ".")); !errors.Is(err, ErrEntangled) {
				t.Errorf("got %v, want ErrEntangled\n%s", err, got)
			}
		})
	}
}
