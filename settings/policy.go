package settings

import (
	"errors"
	"fmt"
	"io/fs"

	"gopkg.in/yaml.v3"

	"github.com/vmbridge/vmbridge/settings/trust"
)

// policy is what the administrator says.
type policy struct {
	exists   bool
	locked   layer
	defaults layer // where the user says nothing
	err      error // why the file cannot be used
}

// readPolicy reads the policy file at path. One that does not exist says
// nothing; one that cannot be used, for whatever reason, turns host networking
// off.
func readPolicy(path string) policy {
	if path == "" {
		return policy{}
	}
	data, err := trust.ReadFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return policy{}
	}
	var p policy
	if err == nil {
		p, err = parsePolicy(path, data)
	} else if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = unreadable(path, err)
	}
	if err != nil {
		return unusable(path, err)
	}
	return p
}

// unusable is what a policy that cannot be used comes to.
func unusable(path string, err error) policy {
	off := &layered{node: boolean().node(false), origin: OriginPolicy, place: path, locked: true}
	return policy{exists: true, locked: layer{enabledKey: off}, err: err}
}

// The keys that are more than a line of the table.
const (
	enabledKey = "host_networking.enabled"
	linksKey   = "links"
)

// parsePolicy reads the text of a policy file.
func parsePolicy(path string, data []byte) (policy, error) {
	root, err := parseJSON(data)
	if err != nil {
		return policy{}, from(path, err)
	}
	p := policy{exists: true, locked: make(layer), defaults: make(layer)}
	err = walk(root, "", true, func(k key, name, value *yaml.Node) error {
		if p.locked[k.name] != nil || p.defaults[k.name] != nil { // once flat, once nested
			return &Error{Line: name.Line, Key: k.name, Err: errAppearsTwice}
		}
		l, err := policyValue(k, value)
		if err != nil {
			return err
		}
		l.place = path
		if l.locked {
			p.locked[k.name] = l
		} else {
			p.defaults[k.name] = l
		}
		return nil
	})
	if err != nil {
		return policy{}, from(path, err)
	}
	return p, nil
}

// policyValue reads {"locked": bool, "value": x}.
func policyValue(k key, n *yaml.Node) (*layered, error) {
	found, err := members(n, "locked", "value")
	if err != nil {
		return nil, within(k.name, n, err)
	}
	for _, name := range []string{"locked", "value"} {
		if found[name] == nil {
			return nil, within(k.name, n, fmt.Errorf("has no %q", name))
		}
	}
	locked, err := boolean().read(found["locked"])
	if err != nil {
		return nil, within(k.name+".locked", found["locked"], err)
	}
	if err := k.read(new(Settings), found["value"]); err != nil {
		return nil, err
	}
	return &layered{node: found["value"], origin: OriginPolicy, locked: locked}, nil
}
