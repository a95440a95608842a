package settings

import (
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// ErrUnknownKey is wrapped where a key does not exist.
var ErrUnknownKey = errors.New("unknown key")

// Error is a mistake in a settings file, a policy file, a variable, a flag or a
// value to set.
type Error struct {
	Path string // the file, the variable or the flag; empty for a value to set
	Line int    // 0 when the mistake is not on one line of a file
	Key  string // with [index] and the member of an element; empty when it is not about one key
	Err  error
}

func (e *Error) Error() string {
	var parts []string
	switch {
	case e.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", e.Path, e.Line))
	case e.Path != "":
		parts = append(parts, e.Path)
	}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

func (e *Error) Unwrap() error { return e.Err }

// LockedError is returned for a change of what the administrator has locked.
type LockedError struct {
	Key        string
	PolicyPath string
	// Policy is what is wrong with the policy file when that is why the key is
	// locked; nil otherwise.
	Policy error
}

func (e *LockedError) Error() string {
	if e.Policy != nil {
		return fmt.Sprintf("%s is locked, because the administrator's policy cannot be used: %v", e.Key, e.Policy)
	}
	return fmt.Sprintf("%s is locked by the administrator's policy in %s", e.Key, e.PolicyPath)
}

func (e *LockedError) Unwrap() error { return e.Policy }

// within gives err the place of node, unless it has a narrower one, and puts
// name in front of the key it is about: "[2]", ".port" or a whole key.
func within(name string, node *yaml.Node, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Key = name + e.Key
		return e
	}
	return &Error{Line: node.Line, Key: name, Err: err}
}

// from names the file, variable or flag that err is about.
func from(path string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Path = path
		return e
	}
	return &Error{Path: path, Err: err}
}
