package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// parseJSON gives JSON as the tree that the keys' readers take, with lines, and
// with the names that appear twice, which encoding/json would merge.
func parseJSON(data []byte) (*yaml.Node, error) {
	// Windows PowerShell writes this mark; JSON forbids it.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return nil, errors.New("not JSON, since it is not UTF-8")
	}
	if !json.Valid(data) {
		return nil, jsonError(data)
	}
	d := jsonTree{dec: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1}
	d.dec.UseNumber()
	return d.value()
}

// jsonError finds the line of a mistake.
func jsonError(data []byte) error {
	var v any
	err := json.Unmarshal(data, &v)
	if e := (*json.SyntaxError)(nil); errors.As(err, &e) {
		end := min(max(e.Offset, 0), int64(len(data)))
		return &Error{Line: 1 + bytes.Count(data[:end], []byte("\n")), Err: fmt.Errorf("not JSON: %w", err)}
	}
	return fmt.Errorf("not JSON: %w", err)
}

// jsonTree turns valid JSON into nodes.
type jsonTree struct {
	dec  *json.Decoder
	data []byte
	// line is that of offset, the end of the last token. A token never spans
	// lines.
	line   int
	offset int64
}

func (t *jsonTree) token() (json.Token, error) {
	token, err := t.dec.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	end := t.dec.InputOffset()
	t.line += bytes.Count(t.data[t.offset:end], []byte("\n"))
	t.offset = end
	return token, nil
}

func (t *jsonTree) value() (*yaml.Node, error) {
	token, err := t.token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: t.line}
	switch v := token.(type) {
	case json.Delim: // an opening one, since the JSON is valid
		n.Kind = yaml.SequenceNode
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for t.dec.More() {
			child, err := t.value()
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := t.token()
		return n, err
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", v.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(v)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}
