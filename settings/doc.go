// Package settings is what the user and the administrator want: one typed model,
// the layers that it is made of, and the file that it is kept in.
//
// Theory of operation. A table (keys.go) has one line for each key: its name,
// its field in Settings, and its kind, which is how values of that type are read
// and written (kinds.go, ranges.go, rules.go, links.go, limits.go). A value is
// a yaml.Node everywhere until the end, whatever it was written in, so that every
// layer goes through the same strict readers, and a new setting is one new line.
//
// The layers, from the weakest to the strongest (layers.go):
//
//	the defaults
//	the policy's values that are not locked    the administrator's defaults
//	the settings file                          YAML, which people edit by hand
//	the variables                              VMBRIDGE_PORTS_DENY for ports.deny
//	the flags
//	the policy's locked values
//
// A layer gives a whole value: lists are not merged. viper ranks the layers, and
// nothing more: its conversions are lenient, it folds the case of keys, and it
// knows no lines. Each value keeps its origin and place on the way.
//
// Reading is strict (yaml.go). An unknown key or member, a value of the wrong
// kind, ports that cannot be or that overlap, a rule that is never reached, two
// rules for one port of this machine, and names that appear twice are each one
// Error with file, line and key. Unknown keys come with the nearest right one.
// YAML's anchors may be used; its merge keys are unknown keys.
//
// Text forms (text.go). Variables, flags and Store.Set take a value as YAML on
// one line, a list of ports or patterns also as a,b, and links also as
// NAME=URL,NAME=URL. Value and KeyInfo have texts of the same form. The word all
// stands for every port in ports.allow and host_reach.allow, where [] is none.
// An empty variable is one that is not set.
//
// The policy (policy.go) is JSON, with {"locked": bool, "value": x} for each
// key; keys are written with dots or nested. Since it is there to forbid, what is
// wrong with it fails closed: a file that is not right in every detail, that
// cannot be read, or that ordinary users could have written turns host
// networking off and locks it, and Effective.PolicyError says why. Only a file
// that does not exist is no policy.
//
// The Store (store.go, edit.go) holds what is in force. When the user's file goes
// bad, its last good content stays, and Effective.FileError says what is wrong; a
// new policy counts all the same. A file that is away or empty may be in the middle
// of being rewritten: what it said holds until Reload is told otherwise. Set and
// Unset work on the file's text, so comments and order stay (package yamledit);
// they read the file anew under its lock, so that two writers lose nothing, and
// check the whole of what comes out before it takes the old one's place. Whether a
// key is locked is asked of the policy as it is at that moment.
//
// Effective is made anew at each change and then never changes, so readers need
// no lock. The Store watches nothing itself: Paths says what to watch, and
// Reload what came of it.
package settings
