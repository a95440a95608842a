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

// FormatLinks gives the links as a Flag or Store.Set takes them.
func FormatLinks(all []Link) string { return flow(links().node(all)) }

// links is a list in which no name appears twice.
func links() kind[[]Link] {
	return kind[[]Link]{
		read: list(link, func(all []Link) error {
			last := len(all) - 1
			for i, l := range all[:last] {
				// Names are also file names, and some systems fold their case.
				if strings.EqualFold(l.Name, all[last].Name) {
					return fmt.Errorf("the name %q is taken by [%d]", all[last].Name, i)
				}
			}
			return nil
		}),
		node:  sequence(0, linkNode),
		parse: parseLinks,
		list:  true,
	}
}

// link takes a mapping with exactly name and url.
func link(n *yaml.Node) (Link, error) {
	found, err := members(n, "name", "url")
	if err != nil {
		return Link{}, err
	}
	if found["name"] == nil || found["url"] == nil {
		return Link{}, errors.New("must have a name and a url")
	}
	var l Link
	if l.Name, err = text(found["name"]); err == nil {
		err = CheckLinkName(l.Name)
	}
	if err != nil {
		return Link{}, within(".name", found["name"], err)
	}
	if l.URL, err = text(found["url"]); err != nil {
		return Link{}, within(".url", found["url"], err)
	}
	return l, nil
}

func linkNode(l Link) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{str("name"), str(l.Name), str("url"), str(l.URL)}}
}

// nextLink finds where one link ends and the next begins. A URL may hold commas
// and equal signs itself, hence the scheme.
var nextLink = regexp.MustCompile(`,\s*([A-Za-z0-9][A-Za-z0-9._-]*=[a-z][a-z0-9+.-]*:)`)

// parseLinks reads NAME=URL,NAME=URL besides YAML.
func parseLinks(s string) (*yaml.Node, error) {
	if s = strings.TrimSpace(s); s == "" || strings.HasPrefix(s, "[") {
		return parseYAML(s)
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for i, part := range splitLinks(s) {
		l, err := ParseLink(strings.TrimSpace(part))
		if err != nil {
			return nil, &Error{Key: fmt.Sprintf("[%d]", i), Err: err}
		}
		n.Content = append(n.Content, linkNode(l))
	}
	return n, nil
}

func splitLinks(s string) []string {
	var parts []string
	for {
		at := nextLink.FindStringSubmatchIndex(s)
		if at == nil {
			return append(parts, s)
		}
		parts = append(parts, s[:at[0]])
		s = s[at[2]:]
	}
}
