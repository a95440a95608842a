package isolation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// The names of Docker Desktop's settings, as admin-settings.json and
// settings.json spell them. settings-store.json starts them with a capital.
const (
	isolationKey      = "enhancedContainerIsolation"
	hostNetworkingKey = "hostNetworkingEnabled"
)

// Docker Desktop may be writing a file when we read it. What is cut off is read
// again, settleReads times in all, settlePause apart.
const (
	settleReads = 4
	settlePause = 20 * time.Millisecond
)

// errCutOff is wrapped by errors about a file that ends too early.
var errCutOff = errors.New("it ends too early, perhaps because it is being written")

// A source is one of Docker Desktop's files, as it was read.
type source struct {
	path    string
	exists  bool
	problem string // why it tells nothing, though it exists
	denied  bool   // the problem is that we may not read it
	doc     document
}

// load reads the file at path. An empty path is a file that does not exist.
func load(path string) source {
	s := source{path: path}
	if path == "" {
		return s
	}
	for read := 1; ; read++ {
		data, err := readFile(path)
		if err != nil {
			if !absent(err) {
				s.exists, s.problem, s.denied = true, "cannot be read: "+reason(err), errors.Is(err, fs.ErrPermission)
			}
			return s
		}
		doc, err := parseDocument(data)
		if errors.Is(err, errCutOff) && read < settleReads {
			time.Sleep(settlePause)
			continue
		}
		s.exists, s.doc = true, doc
		if err != nil {
			s.problem = "cannot be understood: " + err.Error()
		}
		return s
	}
}

// A document is the top level of a file, by key.
type document map[string]json.RawMessage

func parseDocument(data []byte) (document, error) {
	s := strings.TrimSpace(text(data))
	if s == "" {
		return nil, fmt.Errorf("it is empty: %w", errCutOff)
	}
	var doc document
	decoder := json.NewDecoder(strings.NewReader(s))
	err := decoder.Decode(&doc)
	switch syntax := (*json.SyntaxError)(nil); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCutOff
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("it is not JSON: %w", err)
	case err != nil || doc == nil: // another kind of value, or null
		return nil, errors.New("it is not a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("it goes on after its end")
	}
	return doc, nil
}

// A toggle is what a file says about one setting that can be on or off.
type toggle struct {
	set    bool   // the setting is there
	state  State  // Unknown when it is not, or has another shape
	locked bool   // it is marked as locked
	what   string // the words for it, when set
}

// decided tells whether the file says on or off.
func (t toggle) decided() bool { return t.state == On || t.state == Off }

// toggle finds a setting under both spellings. Where they contradict each other
// the one that is on counts, as either may be the one that is in use.
func (d document) toggle(name string) toggle {
	result := toggle{state: Unknown}
	for _, key := range []string{strings.ToUpper(name[:1]) + name[1:], name} {
		raw, ok := d[key]
		if !ok {
			continue
		}
		t := parseToggle(key, raw)
		if !result.set {
			result = t
			continue
		}
		what := result.what + ", and " + t.what
		if weight(t.state) > weight(result.state) {
			result = t
		} else if t.state == result.state {
			result.locked = result.locked || t.locked
		}
		result.what = what
	}
	return result
}

// weight orders states by how much they say: on before unknown before off.
func weight(s State) int {
	switch s {
	case On:
		return 2
	case Unknown:
		return 1
	}
	return 0
}

// parseToggle understands true and false, bare or as the value of an object that
// may also say that it is locked.
func parseToggle(key string, raw json.RawMessage) toggle {
	strange := func(problem string) toggle {
		return toggle{set: true, state: Unknown, what: key + " " + problem}
	}
	var locked bool
	value := raw
	if strings.HasPrefix(string(raw), "{") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return strange("is not valid JSON")
		}
		var ok bool
		if value, ok = object["value"]; !ok {
			return strange("has no value")
		}
		if lock, there := object["locked"]; there {
			if locked, ok = parseBool(lock); !ok {
				return strange("is locked or not: " + excerpt(lock))
			}
		}
	}
	on, ok := parseBool(value)
	if !ok {
		return strange("is neither true nor false: " + excerpt(value))
	}
	t := toggle{set: true, state: Off, locked: locked, what: key + " is false"}
	if on {
		t.state, t.what = On, key+" is true"
	}
	return t
}

// parseBool takes true and false, also as a text, as people write them who edit
// such a file.
func parseBool(raw json.RawMessage) (value, ok bool) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return false, false
	}
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		return v == "true", v == "true" || v == "false"
	}
	return false, false
}

// excerpt is the start of a value, for a message.
func excerpt(raw json.RawMessage) string {
	const limit = 40
	if r := []rune(string(raw)); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return string(raw)
}
