package settings

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

// Origin says which layer an effective value is from.
type Origin string

// From the weakest to the strongest. An administrator's value that is not locked
// is stronger than OriginDefault only, and its origin is OriginPolicy all the same.
const (
	OriginDefault     Origin = "default"
	OriginFile        Origin = "file"
	OriginEnvironment Origin = "environment"
	OriginFlag        Origin = "flag"
	OriginPolicy      Origin = "policy"
)

// Value is one effective value. The texts are what Store.Set takes.
type Value struct {
	Key, Value, Default string
	Origin              Origin
	// Place is FILE:LINE, or the name of the variable or flag, or the policy
	// file's path; empty for a default.
	Place  string
	Locked bool // by the administrator
	Help   string
}

// Flag is a value that a command's flag gives.
type Flag struct {
	Name       string // as it is typed: --enable
	Key, Value string
}

// layered is one value in one layer, checked.
type layered struct {
	node   *yaml.Node
	origin Origin
	place  string
	locked bool
}

// layer is what one place says, by key.
type layer map[string]*layered

// merge finds the strongest value of each key.
//
// viper does the ranking only: the values it holds are nodes that the table has
// checked, since its own conversions are lenient and lose lines. Keys are flat
// to it, because its delimiter is one that no key has.
func merge(p policy, weakToStrong ...layer) (Settings, []Value) {
	defaults := Default()
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00"))
	for _, k := range table {
		v.SetDefault(k.name, &layered{node: k.node(&defaults), origin: OriginDefault})
	}
	for name, value := range p.defaults {
		v.SetDefault(name, value)
	}
	for _, l := range weakToStrong {
		values := make(map[string]any, len(l))
		for name, value := range l {
			values[name] = value
		}
		if err := v.MergeConfigMap(values); err != nil { // viper v1.21 returns no error here
			panic(fmt.Sprintf("settings: merge: %v", err))
		}
	}
	for name, value := range p.locked {
		v.Set(name, value)
	}

	var s Settings
	values := make([]Value, 0, len(table))
	for _, k := range table {
		winner := v.Get(k.name).(*layered)
		if err := k.read(&s, winner.node); err != nil { // every layer has been checked
			panic(fmt.Sprintf("settings: merge: %v", err))
		}
		values = append(values, Value{
			Key: k.name, Value: flow(k.node(&s)), Default: flow(k.node(&defaults)),
			Origin: winner.origin, Place: winner.place, Locked: winner.locked, Help: k.help,
		})
	}
	return s, values
}

// variablePrefix begins the names of all variables.
const variablePrefix = "VMBRIDGE_"

// variable is the name of a key's variable.
func variable(key string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// parseEnviron reads the variables among NAME=VALUE. Those that look like ours
// and are neither a key's nor among the other known ones give a warning.
func parseEnviron(environ, others []string) (layer, []string, error) {
	keys := make(map[string]key, len(table))
	known := slices.Clone(others)
	for _, k := range table {
		keys[variable(k.name)] = k
		known = append(known, variable(k.name))
	}
	found := make(layer)
	seen := make(map[string]bool)
	var warnings []string
	for _, assignment := range environ {
		name, text, _ := strings.Cut(assignment, "=")
		if runtime.GOOS == "windows" { // where names differ in more than case
			name = strings.ToUpper(name)
		}
		// Of two of a name the first counts, as for os.Getenv.
		if !strings.HasPrefix(name, variablePrefix) || text == "" || seen[name] {
			continue
		}
		seen[name] = true
		k, ok := keys[name]
		if !ok {
			if !slices.Contains(others, name) {
				warnings = append(warnings, unknownVariable(name, known))
			}
			continue
		}
		n, err := k.value(text)
		if err != nil {
			return nil, nil, from(name, err)
		}
		found[k.name] = &layered{node: n, origin: OriginEnvironment, place: name}
	}
	slices.Sort(warnings)
	return found, warnings, nil
}

func unknownVariable(name string, known []string) string {
	var short []string
	for _, k := range known {
		short = append(short, strings.TrimPrefix(k, variablePrefix))
	}
	warning := fmt.Sprintf("the variable %s is not known", shown(name))
	near := nearest(strings.TrimPrefix(name, variablePrefix), short)
	if len(near) == 0 {
		return warning
	}
	for i := range near {
		near[i] = variablePrefix + near[i]
	}
	return fmt.Sprintf("%s: did you mean %s?", warning, strings.Join(near, " or "))
}

// parseFlags reads the flags. Of several for one list the elements add up; of
// others the last counts.
func parseFlags(flags []Flag) (layer, error) {
	found := make(layer)
	for _, f := range flags {
		k, err := find(f.Key)
		if err != nil {
			return nil, from(f.Name, err)
		}
		n, err := k.value(f.Value)
		if err != nil {
			return nil, from(f.Name, err)
		}
		if before := found[k.name]; before != nil && n.Kind == yaml.SequenceNode && before.node.Kind == yaml.SequenceNode {
			both := *before.node
			both.Content = slices.Concat(both.Content, n.Content)
			if n, err = k.canonical(&both); err != nil {
				return nil, from(f.Name, err)
			}
		}
		found[k.name] = &layered{node: n, origin: OriginFlag, place: f.Name}
	}
	return found, nil
}
