package settings

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Link names a guest and says how to reach it.
type Link struct {
	Name string
	URL  string
}

// linkName keeps names usable as file names, in commands and in messages.
var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckLinkName tells whether name can name a link.
func CheckLinkName(name string) error {
	if !linkName.MatchString(name) {
		return fmt.Errorf("link name %q: must be letters, digits, dots, dashes and underscores, 63 at most", name)
	}
	return nil
}

// ParseLink reads NAME=URL.
func ParseLink(s string) (Link, error) {
	name, url, ok := strings.Cut(s, "=")
	if !ok || url == "" {
		return Link{}, fmt.Errorf("must be NAME=URL, not %q", s)
	}
	if err := CheckLinkName(name); err != nil {
		return Link{}, err
	}
	return Link{Name: name, URL: url}, nil
}

// link takes a mapping with exactly name and url.
func link(n *yaml.Node) (Link, error) {
	if n.Kind != yaml.MappingNode {
		return Link{}, fmt.Errorf("must have a name and a url%s", got(n))
	}
	var l Link
	err := walk(n, "", map[string]func(*yaml.Node) error{
		"name": func(n *yaml.Node) (err error) {
			if l.Name, err = text(n); err == nil {
				err = CheckLinkName(l.Name)
			}
			return err
		},
		"url": func(n *yaml.Node) (err error) {
			l.URL, err = text(n)
			return err
		},
	})
	if e := (*Error)(nil); errors.As(err, &e) {
		return Link{}, &Error{Line: e.Line, Err: fmt.Errorf("%s: %w", e.Key, e.Err)}
	}
	if err == nil && (l.Name == "" || l.URL == "") {
		err = errors.New("must have a name and a url")
	}
	return l, err
}

// checkLinks refuses two links of one name.
func (s *Settings) checkLinks(root *yaml.Node) error {
	seen := make(map[string]bool)
	for i, l := range s.Links {
		if seen[l.Name] {
			return &Error{Line: lineOf(root, "links", i), Key: fmt.Sprintf("links[%d]", i),
				Err: fmt.Errorf("the name %q appears twice", l.Name)}
		}
		seen[l.Name] = true
	}
	return nil
}

// lineOf finds the line of an element of a list at the top of the file.
func lineOf(root *yaml.Node, key string, index int) int {
	if n := resolve(child(root, key)); n != nil && index < len(n.Content) {
		return n.Content[index].Line
	}
	return 0
}
