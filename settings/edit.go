package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"

	"gopkg.in/yaml.v3"
)

// SetEnabled writes host_networking.enabled into the file at path, which is
// made when it does not exist. Comments, order and everything else stay. A
// file that Load refuses is left alone, with Load's error.
func SetEnabled(path string, enabled bool) error {
	data, err := read(path)
	if err != nil {
		return err
	}
	doc, want, err := parse(path, data)
	if err != nil {
		return err
	}
	if doc == nil {
		doc = &yaml.Node{Kind: yaml.DocumentNode}
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode { // parse allows nothing else but empty
		doc.Content = []*yaml.Node{{Kind: yaml.MappingNode, HeadComment: "# Settings of vmbridge."}}
	}
	setScalar(doc.Content[0], "!!bool", strconv.FormatBool(enabled), "host_networking", "enabled")

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(doc), enc.Close()); err != nil {
		return &Error{Path: path, Err: err}
	}
	// What was written must mean what was meant: an anchor on the value, for
	// one, would carry the change to other keys.
	want.HostNetworking.Enabled = enabled
	if _, got, err := parse(path, b.Bytes()); err != nil || !reflect.DeepEqual(got, want) {
		return &Error{Path: path, Key: "host_networking.enabled",
			Err: fmt.Errorf("cannot be changed without changing more: set it to %t by hand", enabled)}
	}
	if err := replace(path, b.Bytes()); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// setScalar sets the value at a path of keys below mapping, making what is
// missing on the way.
func setScalar(mapping *yaml.Node, tag, value string, path ...string) {
	for _, key := range path[:len(path)-1] {
		next := resolve(child(mapping, key))
		if next == nil {
			next = &yaml.Node{Kind: yaml.MappingNode}
			mapping.Content = append(mapping.Content, keyNode(key), next)
		}
		if next.Kind != yaml.MappingNode { // empty: only comments below it
			*next = yaml.Node{Kind: yaml.MappingNode, HeadComment: next.HeadComment,
				LineComment: next.LineComment, FootComment: next.FootComment}
		}
		mapping = next
	}
	key := path[len(path)-1]
	leaf := child(mapping, key)
	if leaf == nil {
		leaf = &yaml.Node{}
		mapping.Content = append(mapping.Content, keyNode(key), leaf)
	}
	// An alias ends here, rather than to change what else its anchor means.
	leaf.Kind, leaf.Tag, leaf.Value, leaf.Style, leaf.Alias = yaml.ScalarNode, tag, value, 0, nil
}

func keyNode(key string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
}

// child finds the value of a key of a mapping, nil when it is not there.
func child(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// replace writes a file through a rename in its own directory, keeping its
// mode, and the link where path is a symbolic one.
func replace(path string, data []byte) error {
	mode := fs.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
