package settings

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
)

// Sources says where the settings of a process come from.
type Sources struct {
	Path           string   // the user's file, which need not exist
	Policy         string   // the administrator's file, which need not exist; empty for none
	Environ        []string // NAME=VALUE, as os.Environ gives it
	KnownVariables []string // VMBRIDGE_ variables that are not settings
	Flags          []Flag
	// CheckLink, when set, finds what is wrong with a link's URL, beyond its being
	// there.
	CheckLink func(url string) error
}

// Effective is what all layers come to at one moment. It is shared and must not
// be changed.
type Effective struct {
	Settings
	Path        string  // the user's file
	Values      []Value // of every key, in the order of Keys
	PolicyPath  string
	PolicyError error // why the policy file cannot be used; host networking is off and locked then
	FileError   error // what is wrong with the user's file, whose last good content is in force
	Warnings    []string
	// Held says that a file has nothing to say any more, and that what it said is
	// still in force: see Store.Reload.
	Held bool
}

// Value finds the value of a key, which is the zero Value when there is no such
// key.
func (e Effective) Value(key string) Value {
	i := slices.IndexFunc(e.Values, func(v Value) bool { return v.Key == key })
	if i < 0 {
		return Value{}
	}
	return e.Values[i]
}

// Same tells whether a flag says what is in force anyway.
func (e Effective) Same(f Flag) bool {
	l, err := parseFlags([]Flag{f})
	return err == nil && flow(l[f.Key].node) == e.Value(f.Key).Value
}

// Store holds the settings of a process and changes the user's file. Its methods
// may be called at once from several goroutines.
type Store struct {
	sources  Sources
	environ  layer
	warnings []string
	now      atomic.Pointer[Effective]

	mu       sync.Mutex // guards what follows, and the order of what now gets
	flags    layer
	policy   policy     // the one in force
	file     layer      // the last good one
	reported *Effective // by Reload
}

// Open reads all sources. A mistake in the user's file, a variable or a flag is
// an *Error. A policy that cannot be used is no error here: it is in force, and
// turns host networking off.
func Open(sources Sources) (*Store, error) {
	s := &Store{sources: sources}
	var err error
	if s.environ, s.warnings, err = parseEnviron(sources.Environ, sources.KnownVariables); err != nil {
		return nil, err
	}
	if s.flags, err = parseFlags(sources.Flags); err != nil {
		return nil, err
	}
	for _, l := range []layer{s.environ, s.flags} {
		if err := s.checkLinks(l); err != nil {
			return nil, err
		}
	}
	s.refresh(settled)
	s.reported = s.now.Load()
	if err := s.reported.FileError; err != nil {
		return nil, err
	}
	return s, nil
}

// Effective is what is in force.
func (s *Store) Effective() Effective { return *s.now.Load() }

// Reload reads the files again. It tells whether anything differs from what the
// Reload before gave (the first time, from what Open read), so that one who
// follows the settings with it also learns what Set, Unset and DropFlag changed.
//
// A file that is being rewritten may be absent or empty for a moment, in which
// nothing is to be opened or cut. So what a policy said that is gone, and a user's
// file that is gone or empty, stays in force, as Effective.Held tells, until Reload
// is told that the files have settled. What either says is never held up.
func (s *Store) Reload(filesSettled bool) (Effective, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if filesSettled {
		s.refreshLocked(settled)
	} else {
		s.refreshLocked(unsettled)
	}
	now := s.now.Load()
	changed := !same(s.reported, now)
	s.reported = now
	return *now, changed
}

// DropFlag takes back what the flags said about a key.
func (s *Store) DropFlag(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flags, key)
	s.refreshLocked(unsettled)
}

// Paths lists the files to watch.
func (s *Store) Paths() []string {
	paths := []string{s.sources.Path}
	if s.sources.Policy != "" {
		paths = append(paths, s.sources.Policy)
	}
	return paths
}

// belief says which files are believed to have nothing to say any more.
type belief int

const (
	unsettled belief = iota // neither
	written                 // the user's file, which we have written ourselves
	settled                 // both
)

// refresh puts into force what the files say now.
func (s *Store) refresh(b belief) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshLocked(b)
}

func (s *Store) refreshLocked(b belief) {
	held := false
	p := readPolicy(s.sources.Policy)
	if err := s.checkLinks(p.locked); err != nil {
		p = unusable(s.sources.Policy, err)
	} else if err := s.checkLinks(p.defaults); err != nil {
		p = unusable(s.sources.Policy, err)
	}
	if s.policy.exists && !p.exists && b != settled {
		held = true
	} else {
		s.policy = p
	}
	file, empty, err := s.loadFile()
	switch {
	case err != nil:
	case empty && len(s.file) > 0 && b == unsettled:
		held = true
	default:
		s.file = file
	}
	e := &Effective{Path: s.sources.Path, PolicyPath: s.sources.Policy, PolicyError: s.policy.err, FileError: err, Warnings: s.warnings, Held: held}
	e.Settings, e.Values = merge(s.policy, s.file, s.environ, s.flags)
	s.now.Store(e)
}

// loadFile reads the user's file, and tells whether it is empty or not there.
func (s *Store) loadFile() (l layer, empty bool, err error) {
	data, err := readFile(s.sources.Path)
	if err != nil {
		return nil, false, err
	}
	l, err = s.parse(data)
	return l, len(data) == 0, err
}

// parse reads the text of the user's file.
func (s *Store) parse(data []byte) (layer, error) {
	l, err := parseFile(s.sources.Path, data)
	if err == nil {
		err = s.checkLinks(l)
	}
	return l, err
}

// checkLinks looks at the URLs of a layer, whose values have been checked.
func (s *Store) checkLinks(l layer) error {
	v := l[linksKey]
	if v == nil || s.sources.CheckLink == nil {
		return nil
	}
	links, err := links().read(v.node)
	if err != nil {
		return err
	}
	for i, link := range links {
		if err := s.sources.CheckLink(link.URL); err != nil {
			e := &Error{Path: v.place, Key: fmt.Sprintf("%s[%d].url", linksKey, i), Err: err}
			if v.origin == OriginFile {
				e.Path, e.Line = s.sources.Path, resolve(v.node.Content[i]).Line
			}
			return e
		}
	}
	return nil
}

// same compares errors by what they say.
func same(a, b *Effective) bool {
	return fmt.Sprint(a.FileError) == fmt.Sprint(b.FileError) &&
		fmt.Sprint(a.PolicyError) == fmt.Sprint(b.PolicyError) &&
		reflect.DeepEqual(a.Values, b.Values) // whose texts say all of Settings
}
