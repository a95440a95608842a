// Package yamledit changes single keys of a YAML file that people edit by hand.
//
// Theory of operation. People own the text: their comments, blank lines, order,
// indentation and quotes stay. So a change is made in the text, at the place
// where the parser says that the key is. The parser tells where a node begins
// but not where it ends, and YAML has more ways to end one than a short program
// can know. So Set and Remove do not try to know: they make the change in the
// ways that look right, the nicest first (set.go, list.go, remove.go), and take
// the first that passes a check (check.go). The check parses the old and the new
// text. The new one must mean what the old one did, aliases and merges included,
// but for the one key; and all other nodes must be written as they were, with
// their comments. Where none passes with each comment at its node, one passes
// that has them at another, since no text of them was touched.
//
// When no change of the text passes, the nodes are changed and written anew, and
// checked in the same way; layout may differ then, meaning and comments not. When
// that does not pass either, the key cannot be changed without changing more, and
// the answer is ErrEntangled. The check is what is relied on, not the splices: a
// mistake in one costs its beauty and not the user's settings.
//
// Update puts an edit in a file. It holds a lock for as long as it reads, changes
// and writes, so that two writers lose nothing. The lock is on a file beside it,
// as the file itself is replaced: locks on two generations of it would not know
// of each other. That file is never removed, for the same reason. The new text
// goes to a temporary file in the same directory, to the disk, and in place by a
// rename; killed at any instant, a writer leaves the old file or the new one. The
// temporary file it may leave too is removed by the next who holds the lock, when
// no other writer can be there. An editor knows of no lock. So the file is read
// again right before the rename, and changed again when it is not what it was.
// Between that and the rename, some microseconds, an editor's writing can still
// be lost; nothing short of the editor's help can prevent that.
package yamledit
