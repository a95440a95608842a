// Package watch says when files may have changed.
//
// Theory of operation. A wake says nothing but "look again": what is true is in
// the files, and whoever reads them after the wake has all changes before it. So
// nothing is lost when wakes run together, and a wake is sent only when what stat
// says about a file is another than at the last look, or when other people than
// before may write in a directory on the way to it: readers of an administrator's
// file want to know.
//
// There are two reasons to look. One is the system's events (fsnotify). They are
// asked for on directories and not on files, which editors replace: on the
// directory of each file, on those of the symbolic links on the way to it, and,
// where a directory is missing, on the nearest one that is there. Each look finds
// these anew, so that links may turn and directories may come and go. Events of
// other files in the same directories cost a look in a table, and no more. After
// the first event the rest are left with the system for a moment, where those of
// a busy file become one. The other reason is a clock, once a second, for file
// systems without events, for what is renamed further up, and for when the system
// has no watches left.
//
// One goroutine takes the events and one looks. The first never waits for the
// second: on some systems a watch cannot be added while events are not taken.
package watch
