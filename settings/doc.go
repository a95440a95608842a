// Package settings reads and edits the user's settings file.
//
// Theory of operation. The file is YAML that people edit by hand. Load parses
// it into a node tree and walks that tree along a table of keys (keys.go), so
// that an unknown key or a value of the wrong kind is one error with file,
// line and key, and a new setting is one new line of the table. A missing file
// is the default settings. SetEnabled changes one value in the node tree and
// writes it back, comments included, through a rename, so that a reader never
// sees half a file.
package settings
