package settings

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/vmbridge/vmbridge/settings/yamledit"
)

// Set writes a value into the user's file. The error is an *Error for a value or
// a file that is not right (its Path is empty when it is the value), a *LockedError for what the administrator has
// locked, and wraps ErrUnknownKey for what is no key; nothing is written then.
//
// A variable or a flag may still be stronger than what the file says now.
func (s *Store) Set(key, value string) error {
	k, err := find(key)
	if err != nil {
		return err
	}
	n, err := k.value(value)
	if err == nil {
		err = s.checkLinks(layer{k.name: {node: n}})
	}
	if err != nil {
		return err
	}
	return s.edit(k, n)
}

// Unset takes a value out of the user's file. The errors are those of Set.
func (s *Store) Unset(key string) error {
	k, err := find(key)
	if err != nil {
		return err
	}
	return s.edit(k, nil)
}

// errUnchanged ends an edit that has nothing to write.
var errUnchanged = errors.New("nothing to change")

// edit sets a key in the user's file, or removes it when n is nil.
func (s *Store) edit(k key, n *yaml.Node) error {
	if err := s.checkLock(k.name); err != nil {
		return err
	}
	err := yamledit.Update(s.sources.Path, func(old []byte) ([]byte, error) {
		changed, err := s.change(old, k, n)
		if err == nil && bytes.Equal(old, changed) {
			return nil, errUnchanged
		}
		return changed, err
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return err // which names the file already
	}
	s.refresh(written)
	return nil
}

// checkLock looks at the policy as it is now.
func (s *Store) checkLock(key string) error {
	s.refresh(unsettled)
	e := s.now.Load()
	if !e.Value(key).Locked {
		return nil
	}
	return &LockedError{Key: key, PolicyPath: e.PolicyPath, Policy: e.PolicyError}
}

// change edits the text of a file and checks all of what comes out.
func (s *Store) change(old []byte, k key, n *yaml.Node) ([]byte, error) {
	keys := strings.Split(k.name, ".")
	var edited []byte
	var err error
	if n == nil {
		edited, err = yamledit.Remove(old, keys)
	} else {
		edited, err = yamledit.Set(old, keys, n)
	}
	if err != nil {
		if _, fileErr := s.parse(old); fileErr != nil {
			return nil, fileErr // which is why, and has the line
		}
		return nil, &Error{Path: s.sources.Path, Key: k.name, Err: fmt.Errorf("cannot be changed here: %w", err)}
	}
	if _, err := s.parse(edited); err != nil {
		return nil, err
	}
	return edited, nil
}
